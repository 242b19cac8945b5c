"""The `${data_root}` of configurations: the folder that ModelScope downloaded a data set to."""
from .errors import DatasetError

DATA_ROOT = '${data_root}'


def replace_data_root(value, split_config):
    """Return a section with `${data_root}` replaced by a folder, in nested values too.

    Args:
        value: section of a configuration (or any value in one).
        split_config: `{'train': folder}` or `{'validation': folder}`; None when no data set was downloaded.

    Raises:
        DatasetError: a value contains `${data_root}` and there is no `split_config`.
    """
    if isinstance(value, dict):
        return {key: replace_data_root(item, split_config) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_data_root(item, split_config) for item in value]
    if not isinstance(value, str) or DATA_ROOT not in value:
        return value
    if not split_config:
        raise DatasetError(f'"{value}" contains {DATA_ROOT}, which stands for the folder of a downloaded data set; '
                           'pass the data set (MsDataset.load(…)) or write the folder into the configuration')
    return value.replace(DATA_ROOT, str(next(iter(split_config.values()))).rstrip('/'))
