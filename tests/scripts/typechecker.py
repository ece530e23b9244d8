"""The type checker that jaxtyping's pytest option wraps around the functions of grail."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for pyright
