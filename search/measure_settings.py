"""The fields of the Wsr-NAS search that say with which weights an architecture is measured."""

from dataclasses import dataclass

from wsrnas.runtime.config import Ranges, option

SUPERNET, SHORT = "supernet", "short"
MEASURES = {
    SUPERNET: "with the weights that the paths share (paper)",
    SHORT: "each after a short adversarial training of its own, all from the same weights, on the same batches",
}


@dataclass(frozen=True)
class MeasureConfig(Ranges):
    """The fields about the weights of a measured architecture."""

    measure: str = option(SUPERNET, "with which weights an architecture is measured", choices=MEASURES, added=True,
                          group="measurement")
    short_epochs: int = option(3, "epochs of a short training, whose learning rate is half a cosine from "
                               "--learning_rate", added=True)
    halvings: int = option(0, "how many times the worse half of the architectures of a search iteration ends its short "
                           "training early, the first time after short_epochs / 2 ** halvings epochs", added=True)
    short_images: int = option(0, "images of D_t in a short training, a class-balanced seeded choice; 0: all",
                               added=True)
    validation_steps: int = option(0, "steps of the PGD attacks that measure: on D_v, in its check, and in the "
                                   "AN-Estimator's tasks; 0: num_steps", added=True)

    @property
    def trains_apart(self) -> bool:
        """Whether each process trains and measures architectures of its own, instead of its share of every batch."""
        return self.measure == SHORT

    def unread(self) -> dict[str, str]:
        """Return why nothing reads a field under this configuration, and what would, by the names of such fields."""
        if self.measure == SHORT:
            return super().unread() | {"sync_bn": f"measure is {SHORT}: each process normalises whole batches"}
        return super().unread() | dict.fromkeys(
            ("short_epochs", "short_images"), f"measure is {self.measure}; expected --measure {SHORT} with it")
