"""Named recipes of a retraining: the published ones of both papers, and two of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from retrain.settings import ImageNetConfig, RetrainConfig
from wsrnas.architectures.searched import spelled
from wsrnas.models import load_architecture, sizes
from wsrnas.runtime.config import Invocation, parse_config
from wsrnas.runtime.deferred import deferred_imports

with deferred_imports():
    from wsrnas.genotype import Genotype

Config = TypeVar("Config", RetrainConfig, ImageNetConfig)


def parse_recipe(cls: type[Config], recipes: Mapping[str, Config], argv: Sequence[str] | None = None,
                 prog: str | None = None) -> tuple[Config, Invocation]:
    """Read the command line as ``parse_config`` does, with the right size for networks that are not of DARTS cells.

    Width and depth of a recipe are those of its cell. Graphs of NAS-Bench-201 and networks with a design of their own
    have their published size instead.

    Args:
        cls: configuration of the program.
        recipes: configurations by name.
        argv: the command line; None: that of the process.
        prog: name of the program in messages.

    Raises:
        InputError: see ``parse_config``; or there is no such architecture, or none of this depth.
    """
    config, invocation = parse_config(cls, recipes, argv, prog)
    architecture = load_architecture(config.arch)
    if isinstance(architecture, Genotype):
        return config, invocation
    given = isinstance(architecture, str) or spelled(config.arch) is not None
    arch = str(architecture) if given else config.arch  # one spelling, so that a resumed run finds its directory
    channels, layers = sizes(arch, config.dataset)
    own = {key: replace(recipe, arch=arch, init_channels=channels, layers=layers or 0)
           for key, recipe in recipes.items()}
    config, invocation = parse_config(cls, own, argv, prog)
    sizes(arch, config.dataset, config.init_channels, config.layers or None)  # an error comes before any data is read
    return replace(config, arch=arch), invocation


BASIC = RetrainConfig()
# Early-stopped TRADES with AWP and an average of the weights, the usual baseline of robust training (Wu et al. 2020;
# Rice et al. 2020; Gowal et al. 2021).
STRONG = replace(
    BASIC, preset="strong", adv_loss="trades", trades_beta=6.0, epsilon=8 / 255, num_steps=10, step_size=2 / 255,
    batch_size=128, epochs=120, schedule="cosine", awp_gamma=0.005, awp_warmup=10, ema_decay=0.999)
RECIPES: dict[str, RetrainConfig] = {
    "wsrnet-basic": BASIC,
    "wsrnet-robust": replace(BASIC, preset="wsrnet-robust", arch="WsrNet_Robust", batch_size=64, weight_decay=1e-4),
    "wsrnet-plus": replace(BASIC, preset="wsrnet-plus", arch="WsrNet_Plus", init_channels=46),
    "wsrnet-m": replace(BASIC, preset="wsrnet-m", arch="WsrNet_M", weight_decay=7e-4),
    "wsrnet-m-1": replace(BASIC, preset="wsrnet-m-1", arch="WsrNet_M_1", weight_decay=7e-4),
    "wsrnet-n": replace(BASIC, preset="wsrnet-n", arch="WsrNet_N", init_channels=50, weight_decay=7e-4),
    "trades-1": replace(BASIC, preset="trades-1", adv_loss="trades"),
    "trades-6": replace(BASIC, preset="trades-6", adv_loss="trades", trades_beta=6.0),
    "multi-adv": replace(BASIC, preset="multi-adv", adv_loss="multi", batch_size=64),
    # RNAS, Sec. 4. The paper does not say where its attack starts; that of Madry et al. starts at random.
    "rnas": replace(BASIC, preset="rnas", arch="RNAS_repo_H", init_channels=36, epsilon=8 / 255, step_size=2 / 255,
                    random_start=True, batch_size=128, epochs=300, schedule="cosine", learning_rate=0.01,
                    weight_decay=3e-4),
    "strong": STRONG,
    # For the digits; half a minute on two CPU cores.
    "tiny": replace(BASIC, preset="tiny", dataset="digits", init_channels=6, layers=4, batch_size=32, epochs=6,
                    milestones=(4, 5), epsilon=0.1, num_steps=3, held_out=140, select_every=2),
}

IMAGENET = ImageNetConfig(
    init_channels=74, adv_loss="fast", epsilon=4 / 255, step_size=4 / 255, label_smoothing=0.1, batch_size=256,
    epochs=51, schedule="cyclic", weight_decay=2e-4, held_out=5000, eval_batch_size=128, save_every=1000)
IMAGENET_RECIPES: dict[str, ImageNetConfig] = {
    "wsrnet-basic": IMAGENET,
    "racl": replace(IMAGENET, preset="racl", arch="RACL", init_channels=64),
    "advrush": replace(IMAGENET, preset="advrush", arch="AdvRush", init_channels=60),
    # To try the program; seconds on a CPU.
    "tiny": replace(IMAGENET, preset="tiny", init_channels=4, layers=4, batch_size=16, epochs=2, held_out=0,
                    image_size=64, workers=0),
}
