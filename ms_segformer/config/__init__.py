"""Configurations: `read_configuration` is the one door, from a file in EasyCV's ModelScope schema to typed settings.

`schema` knows what stands there besides the network, and `limits` how large what it names may be.
"""

from .class_file import ClassFileError
from .messages import ConfigurationError
from .reader import read_configuration
from .settings import Settings

__all__ = ['ClassFileError', 'ConfigurationError', 'Settings', 'read_configuration']
