// A picture from the camera: in a dialog where the page may use the camera, otherwise by the device's own program.

import { say } from './words.js';

const REASONS = { NotAllowedError: 'cameraRefused', SecurityError: 'cameraRefused', NotFoundError: 'cameraMissing' };

// Shows the button where a picture can be taken; `taken` is called with it as a File.
export function offerCamera(taken) {
  const button = document.getElementById('take');
  const input = document.getElementById('snapshot');
  if (navigator.mediaDevices?.getUserMedia) {
    button.addEventListener('click', () => open(taken));
  } else if (matchMedia('(pointer: coarse)').matches) {
    // Browsers keep the camera from pages that did not come over HTTPS; phones then take the picture themselves.
    button.addEventListener('click', () => input.click());
    input.addEventListener('change', () => {
      if (input.files.length) taken(input.files[0]);
      input.value = '';
    });
  } else {
    return;
  }
  button.hidden = false;
}

async function open(taken) {
  const [dialog, video, shoot, cancel, words] = ['camera', 'video', 'shoot', 'close-camera', 'camera-words'].map((id) =>
    document.getElementById(id),
  );
  const closed = new AbortController();
  let stream = null;
  const stop = () => stream?.getTracks().forEach((track) => track.stop());
  say(words, 'cameraWaiting');
  shoot.disabled = true;
  video.hidden = true;
  cancel.addEventListener('click', () => dialog.close(), { signal: closed.signal });
  shoot.addEventListener(
    'click',
    async () => {
      const file = await snapshot(video);
      dialog.close();
      if (file) taken(file);
    },
    { signal: closed.signal },
  );
  dialog.addEventListener(
    'close',
    () => {
      closed.abort();
      stop();
      video.srcObject = null;
    },
    { once: true },
  );
  dialog.showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { facingMode: 'environment', width: { ideal: 1920 }, height: { ideal: 1080 } },
    });
    if (closed.signal.aborted) return stop();
    video.srcObject = stream;
    video.hidden = false;
    await video.play();
    say(words, null);
    shoot.disabled = false;
    shoot.focus();
  } catch (error) {
    if (!closed.signal.aborted) {
      video.hidden = true;
      say(words, REASONS[error.name] ?? 'cameraTaken');
    }
  }
}

async function snapshot(video) {
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  const picture = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.92));
  return picture && new File([picture], 'camera.jpg', { type: picture.type });
}
