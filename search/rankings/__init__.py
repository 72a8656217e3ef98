"""How well a score ranks architectures that were trained one by one: the parts of ``search.ranking``."""
