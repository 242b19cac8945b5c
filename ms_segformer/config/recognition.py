"""Whether a configuration is that of a SegFormer of EasyCV's making, and which plugins it asks for."""

import re
from typing import Any

from ..metainfo import DEAD_PLUGIN, MODEL, PIPELINE
from .messages import ConfigurationError, shown

REPOSITORY = 'easycv'  # of DEAD_PLUGIN, in lower case: the name at the end of its URL


def is_segformer(configuration: Any) -> bool:
    """Whether a configuration (a dict or ModelScope's `Config`) is that of a SegFormer model of EasyCV's making."""
    return type_in(configuration, 'model') == MODEL and type_in(configuration, 'pipeline') == PIPELINE


def check_pipeline(configuration: Any, name: str) -> None:
    """Refuse a SegFormer of EasyCV's whose pipeline is another: ModelScope would run pip for the plugin it names.

    Args:
        configuration: the content of any configuration, SegFormer's or not.
        name: of its file, for the message.

    Raises:
        ConfigurationError: the plugin is EasyCV's, and the model is SegFormer with a pipeline that is missing or not
            EasyCV's, or the pipeline is EasyCV's and there is no model.
    """
    model, pipeline = type_in(configuration, 'model'), type_in(configuration, 'pipeline')
    doubtful = pipeline != PIPELINE if model == MODEL else model is None and pipeline == PIPELINE
    if not doubtful or not any(map(is_dead_plugin, plugins_of(configuration))):
        return
    if model is None:
        raise ConfigurationError(
            f'{name}: model.type is missing; accepted: {MODEL!r}. ModelScope would now run pip '
            f'for the plugin {DEAD_PLUGIN}, which can no longer be installed'
        )
    raise ConfigurationError(
        f'{name}: pipeline.type is {shown(pipeline)}; accepted: {PIPELINE!r}, the pipeline of a SegFormer with the '
        f'plugin {DEAD_PLUGIN}. ModelScope would now run pip for that plugin, which can no longer be installed. '
        'Correct the type, or remove "plugins" if the pipeline is not of EasyCV'
    )


def type_in(configuration: Any, section: str) -> Any:
    """The `type` that a section of a configuration (a dict or ModelScope's `Config`) names; None without one."""
    # Through the plain dict, so that reading another model's configuration runs no code of ModelScope's that it
    # would not have run without us.
    content = configuration if isinstance(configuration, dict) else getattr(configuration, '_cfg_dict', None)
    found = dict.get(content, section) if isinstance(content, dict) else None
    return dict.get(found, 'type') if isinstance(found, dict) else None


def plugins_of(configuration: Any) -> list[str]:
    """The requirements that a configuration names in `plugins`: one, a list, or the keys of a dict."""
    plugins = configuration.get('plugins') or ()
    plugins = [plugins] if isinstance(plugins, str) else plugins
    return [str(name) for name in plugins] if isinstance(plugins, (list, tuple, dict)) else []


def is_dead_plugin(requirement: str) -> bool:
    """Whether a requirement is pai-easycv: by name, by URL, or the path of a wheel (users' own repair of a file)."""
    text = requirement.strip().replace('\\', '/')
    named = re.match(r'([\w.-]+)\s*(\[[^]]*\])?\s*@', text) or re.search(r'#(?:.*&)?egg=([\w.-]+)', text)
    address = re.split(r'[?#]', text)[0].rstrip('/')
    last = re.split(r'(?<=.)@', address.rpartition('/')[2])[0]  # `EasyCV.git@v0.11.7`
    name: str = named[1] if named else re.sub(r'\.(git|whl|zip|tar\.gz)$', '', last, flags=re.IGNORECASE)
    name = re.sub(r'[-_.]+', '-', name).lower()  # as PEP 503 compares names
    if '/' in address and not named and name == REPOSITORY:
        return True
    return name.startswith(DEAD_PLUGIN) and not name[len(DEAD_PLUGIN) :].lstrip('-')[:1].isalpha()
