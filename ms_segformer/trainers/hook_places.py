"""Where the hooks of a configuration stand: some in `train.hooks`, some in a place of their own."""

from .errors import TrainingError

PLACES = {  # of hooks that a configuration may name in train.hooks
    'TextLoggerHook': ('train', 'logging'),
    'CheckpointHook': ('train', 'checkpoint', 'period'),
    'BestCkptSaverHook': ('train', 'checkpoint', 'best'),
    'BestCkptSaver': ('train', 'checkpoint', 'best'),
    'EvaluationHook': ('evaluation', 'period'),
}


def sections(raw: dict) -> list[tuple[str, dict]]:
    """(place, section) of every hook of a configuration; the place of those that have none is `train.hooks`."""
    found = []
    for place in dict.fromkeys(PLACES.values()):
        section: dict | None = raw
        for key in place:
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict):
            found.append(('.'.join(place), section))
    hooks = (raw.get('train') or {}).get('hooks') or []
    return found + [('.'.join(PLACES.get(hook.get('type'), ('train', 'hooks'))), hook) for hook in hooks]


def settle(raw: dict) -> None:
    """Move the hooks that have a place of their own there; what stands in that place already wins, null switches off.

    `{'type': 'EvaluationHook', 'interval': 2}` in `train.hooks` is `evaluation.period: {'interval': 2}`. ModelScope
    does the same afterwards, but stops at a null and drops what the hook says when the place says something else.
    """
    train = raw.setdefault('train', {})
    kept = []
    for hook in train.get('hooks') or []:
        place = PLACES.get(hook.get('type'))
        if place is None:
            kept.append(hook)
            continue
        section = raw
        for key in place[:-1]:
            if not isinstance(section.get(key), dict):
                section[key] = {}
            section = section[key]
        if place[-1] not in section or isinstance(section[place[-1]], dict):
            options = {key: value for key, value in hook.items() if key != 'type'}
            section[place[-1]] = {**options, **section.get(place[-1], {})}
    train['hooks'] = kept


def refuse_two_of_a_kind(raw: dict) -> None:
    """Two hooks for one place would become one, and what the other says would be lost."""
    seen: dict[tuple[str, ...], dict] = {}
    for hook in (raw.get('train') or {}).get('hooks') or []:
        place = PLACES.get(hook.get('type'))
        if place is not None and seen.setdefault(place, hook) is not hook:
            raise TrainingError(f'train.hooks has two hooks for {".".join(place)}: {seen[place]} and {hook}; keep one')


def refuse_two_best(written: dict) -> None:
    """A file whose two places for the best checkpoint contradict each other: one would be dropped."""
    best = [section for place, section in sections(written) if place == 'train.checkpoint.best']
    for other in best[1:]:
        for key in other.keys() & best[0].keys() - {'type'}:
            if other[key] != best[0][key]:
                raise TrainingError(
                    f'the configuration has two hooks for the best checkpoint, {best[0]} and {other}; keep one'
                )
