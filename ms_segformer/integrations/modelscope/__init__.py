"""ModelScope: the only place that changes anything in it, and what asks its hub; imported before ModelScope is.

Exports nothing, so that `import ms_segformer` stays cheap: `autoload` waits for ModelScope, `patches`
changes it then.
"""
