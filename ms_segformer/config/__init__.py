"""Configurations: `read_configuration` is the one door, from a file in EasyCV's ModelScope schema to typed settings.

`limits` says how large what it names may be.
"""
from .class_file import ClassFileError
from .reader import ConfigurationError, Settings, read_configuration

__all__ = ['ClassFileError', 'ConfigurationError', 'Settings', 'read_configuration']
