"""What `verify` found: one JSON document, and the text that fits into an issue."""

from dataclasses import asdict, dataclass, field
from typing import Any

from .checks import FAILED, Check

SIGNS = {'passed': 'ok', 'failed': 'FAILED', 'skipped': 'not checked'}
FORMAT = 1  # of the JSON document; a higher number when a key changes its meaning


@dataclass
class Report:
    """Everything known about one model after `verify`.

    Attributes:
        model: `name` as given, `directory`, and as far as known `id`, `revision`, `card` (b0 … b5), `fingerprint`.
        environment: versions, hardware and threads, as texts.
        files: dicts with `name`, `bytes` and `sha256`.
        checks: in the order they were made.
        photographs: label maps of photographs, see `label_maps.describe`.
        speed: name of an engine to milliseconds.
        score: of a labeled split: `images`, `mIoU`, `aAcc`, `mAcc` (percent), `IoU` (percent by class), …; or empty.
    """

    model: dict[str, Any]
    environment: dict[str, str]
    files: list[dict[str, Any]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    photographs: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(check.outcome == FAILED for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {'format': FORMAT, **asdict(self)}

    def summary(self) -> str:
        """Markdown for people: a table of the checks, the score, and what it ran on."""
        name = self.model.get('id') or self.model['directory']
        lines = [
            f'### ms-segformer verify: {name}' + (f' at {self.model["revision"]}' if 'revision' in self.model else ''),
            '',
            '| check | outcome | |',
            '|-|-|-|',
        ]
        lines += [f'| {check.name} | {SIGNS[check.outcome]} | {_cell(check.detail)} |' for check in self.checks]
        lines += ['', '| file | bytes | SHA-256 |', '|-|-|-|']
        lines += [f'| {_cell(file["name"])} | {file["bytes"]:,} | `{file["sha256"]}` |' for file in self.files]
        lines += self._score_lines()
        if self.speed:
            lines += [
                '',
                f'Milliseconds per image on the CPU, {self.environment["threads"]}, from file to label map: '
                + ', '.join(f'{engine} {value:.0f}' for engine, value in self.speed.items()),
            ]
        lines += ['', f'{self.environment.get("versions", "")}; Python {self.environment.get("python", "")}']
        return '\n'.join(lines)

    def _score_lines(self) -> list[str]:
        if not self.score:
            return []
        found = self.score
        if found['mIoU'] is None:
            return []
        lines = [
            '',
            f'**mIoU {found["mIoU"]:.2f}, aAcc {found["aAcc"]:.2f}** on {found["images"]:,} images of '
            f'{found["split"]}, {found["engine"]}',
        ]
        worst = sorted((value, name) for name, value in found['IoU'].items() if value is not None)
        best = ', '.join(f'{name} {value:.1f}' for value, name in reversed(worst[-5:]))
        least = ', '.join(f'{name} {value:.1f}' for value, name in worst[:5])
        return lines + ['', f'Best: {best}. Worst: {least}. The other classes: in the JSON report.']


def _cell(text: str) -> str:
    return text.replace('|', '\\|').replace('\n', ' ')
