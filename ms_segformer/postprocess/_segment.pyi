kernels: list[str]

def use(name: str, /) -> None: ...
def segment_band(
    pixels: int,
    height: int,
    width: int,
    classes: int,
    pitch: int,
    row_first: int,
    row_weights: int,
    row_taps: int,
    height_out: int,
    col_first: int,
    col_weights: int,
    col_taps: int,
    width_out: int,
    labels: int,
    sums: int,
    counts: int,
    top: int,
    bottom: int,
    tile: int,
    /,
) -> bool: ...
