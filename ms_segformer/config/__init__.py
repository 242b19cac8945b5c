"""Configurations: `reader.read_configuration` is the one door, from a file in EasyCV's ModelScope schema to settings.

`schema` knows what stands there besides the network, and `limits` how large what it names may be. Modules are imported
by name: the help of the command line needs the limits alone.
"""

from .messages import ConfigurationError

__all__ = ['ConfigurationError']
