"""The overlay of a video plays in Chromium."""

import base64
from fractions import Fraction

import numpy as np
import pytest

from ms_segformer.preprocessors.video import Video
from ms_segformer.results.video import OverlayVideo

COLORS = ((200, 40, 90), (30, 160, 60))
PLAY = """async () => {
  const video = document.querySelector('video')
  const size = [video.videoWidth, video.videoHeight, video.duration]
  await video.play()
  if (!video.ended) await new Promise((resolve) => (video.onended = resolve))
  const canvas = document.createElement('canvas')
  ;[canvas.width, canvas.height] = size
  const context = canvas.getContext('2d')
  context.drawImage(video, 0, 0)
  const pixel = [...context.getImageData(20, 20, 1, 1).data].slice(0, 3)
  return {size, pixel, frames: video.getVideoPlaybackQuality().totalVideoFrames}
}"""


def test_an_overlay_plays_to_its_end_in_its_size_and_colors(chromium, tmp_path):
    pytest.importorskip('av', reason='needs PyAV')
    video = Video('clip.mp4', 47, 63, Fraction(20), None, Fraction(1), False, (_ for _ in ()))
    overlay = OverlayVideo(tmp_path / 'a.mp4', video)
    for number in range(20):
        overlay.add(np.full((47, 63, 3), COLORS[number // 10], np.uint8), number / 20)
    overlay.finish()
    content = base64.b64encode((tmp_path / 'a.mp4').read_bytes()).decode()
    page = chromium.new_page()
    try:
        if not page.evaluate("""document.createElement('video').canPlayType('video/mp4; codecs="avc1.64000A"')"""):
            pytest.skip('this Chromium has no H.264')
        page.set_content(f'<video muted src="data:video/mp4;base64,{content}"></video>')
        page.wait_for_function('document.querySelector("video").readyState >= 2', timeout=20_000)
        played = page.evaluate(PLAY)
    finally:
        page.close()
    assert played['size'] == [64, 48, pytest.approx(1, abs=0.01)] and played['frames'] == 20
    assert np.abs(np.subtract(played['pixel'], COLORS[1])).max() < 6
