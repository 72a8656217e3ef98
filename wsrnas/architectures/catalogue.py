"""Where every architecture was published, at which size, and what the two papers' tables say of it.

"Wsr-NAS" is Cheng et al., AAAI 2023: Tables 1 and 2 (CIFAR-10), 3 (search times), 4 (ImageNet). "RNAS" is the ICLR 2022
submission: Tables 1 and 2 (CIFAR-10), 3 (CIFAR-100), 4 (SVHN).
"""

from dataclasses import dataclass

from wsrnas.architectures import cells, hand_designed
from wsrnas.runtime.spelling import closest as closest_of
from wsrnas.runtime.spelling import plain

# The DARTS conventions, for cells whose papers give no other size: (init_channels, layers).
CIFAR_SIZE, IMAGENET_SIZE = (36, 20), (48, 14)
ROBNET_IMAGENET_WIDTH = 48  # published for RobNet-large


@dataclass(frozen=True)
class Reported:
    """What a paper says of an architecture.

    Args:
        tables: numbers of the tables it is in.
        millions: of parameters, as printed; empty where the tables say nothing.
        imagenet: whether that is of the network for ImageNet.
    """

    paper: str
    tables: str
    millions: str = ""
    imagenet: bool = False

    @property
    def place(self) -> str:
        """``Wsr-NAS 1, 2``."""
        return f"{self.paper} {self.tables}"


@dataclass(frozen=True)
class Entry:
    """One architecture.

    Args:
        name: what ``models.build_model`` takes.
        family: "Wsr-NAS", "RNAS", "robust NAS", "NAS" or "hand-designed".
        source: repository, file, commit and symbol of a cell; the paper of another network.
        reported: in the papers' tables.
        size, imagenet_size: (init_channels, layers) of the published networks for small images and for ImageNet; None
            layers is a depth of its own.
        note: what a reader of the numbers has to know.
    """

    name: str
    family: str
    source: str
    reported: tuple[Reported, ...] = ()
    size: tuple[int, int | None] = CIFAR_SIZE
    imagenet_size: tuple[int, int | None] = IMAGENET_SIZE
    note: str = ""

    def size_for(self, dataset: str) -> tuple[int, int | None]:
        """(init_channels, layers) of the published network on ``dataset``."""
        return self.imagenet_size if dataset == "imagenet" else self.size


def _wsr(millions: str, tables: str = "1, 2") -> Reported:
    return Reported("Wsr-NAS", tables, millions)


def _wsr_imagenet(millions: str) -> Reported:
    return Reported("Wsr-NAS", "4", millions, imagenet=True)


def _rnas(millions: str, tables: str) -> Reported:
    return Reported("RNAS", tables, millions)


WSR = "zhicheng2T0/Wsr-NAS retrain/genotypes.py@7736f5da"
DARTS = "quark0/darts cnn/genotypes.py@f276dd34"
RNAS = "hye999/RNAS genotypes.py@f85107e6"
TRNAS = "fly2tortoise/TRNAS 2_Darts_space/eval/genotypes.py@66b668f3"
NAS_OOD = "HaoyueBaiZJU/NAS-OoD tools/genotypes.py@13a63ad9"
SNAS = "SNAS-Series/SNAS-Series SNAS/genotypes.py@9a43adbd"
PC_DARTS = "yuhuixu1993/PC-DARTS genotypes.py@b74702f8"
ADVRUSH = "nutellamok/advrush advrush/genotypes.py@a15b26a4"
LRNAS = "fyqsama/LRNAS genotypes.py@aa13ec24"
ROBNETS = "gmh14/RobNets architecture_code.py@0fbcb036"
WIDTH_UNKNOWN = "the width that the paper retrained is not published, this one comes near its figure"

_CELLS = (
    Entry("WsrNet_Basic", "Wsr-NAS", f"{WSR} cna_r", (_wsr("4.5"), _wsr_imagenet("13.1")), (45, 20), (74, 20),
          "WsrNet-Robust is the same cell under another recipe"),
    Entry("WsrNet_Plus", "Wsr-NAS", f"{WSR} WsrNet_Plus", (_wsr("4.7"),), (46, 20),
          note="the graph of WsrNet_M_1: two edges of a node are listed in the other order"),
    Entry("WsrNet_M", "Wsr-NAS", f"{WSR} cna_m", size=(45, 20)),
    Entry("WsrNet_M_1", "Wsr-NAS", f"{WSR} cna_m_1", size=(45, 20)),
    Entry("WsrNet_N", "Wsr-NAS", f"{WSR} cna_n", size=(50, 20)),
    Entry("WsrNet_R_minus", "Wsr-NAS", "zhicheng2T0/Wsr-NAS test_AN_estimator/genotypes.py@7736f5da cna_r_minus",
          size=(42, 20)),
    Entry("RACL", "robust NAS", f"{ADVRUSH} RACL",
          (_wsr("3.6"), _wsr_imagenet("12.0"), _rnas("3.6", "1, 3, 4")), imagenet_size=(64, 20),
          note="a copy that five repositories share; there is no official one"),
    Entry("AdvRush", "robust NAS", f"{ADVRUSH} ADVRUSH", (_wsr("4.2"), _wsr_imagenet("12.2")), imagenet_size=(60, 20)),
    Entry("RNAS_repo_H", "RNAS", f"{RNAS} RNAS_H", (_rnas("3.5 as RNAS-L", "1-4"),),
          note="the repository's H and L have each other's parameter figures of the paper"),
    Entry("RNAS_repo_L", "RNAS", f"{RNAS} RNAS_L", (_rnas("3.2 as RNAS-H", "1, 3, 4"),), note="as RNAS_repo_H"),
    Entry("DARTS_V1", "NAS", f"{DARTS} DARTS_V1", (_wsr("3.2"), _rnas("3.3", "1-4")),
          note="the first-order cell, which RNAS' repository calls DARTS"),
    Entry("DARTS_V2", "NAS", f"{DARTS} DARTS_V2", note="the second-order cell, which most papers call DARTS"),
    Entry("PC_DARTS", "NAS", f"{PC_DARTS} PC_DARTS_cifar", (_rnas("3.6", "1-4"),)),
    Entry("PC_DARTS_ImageNet", "NAS", f"{PC_DARTS} PC_DARTS_image", note="searched on ImageNet"),
    Entry("P_DARTS", "NAS", "chenxin061/pdarts genotypes.py@b880e873 PDARTS", (_rnas("3.4", "1"),)),
    Entry("SNAS_mild", "NAS", f"{SNAS} SNAS_mild", (_rnas("2.7", "1-4"),)),
    Entry("SNAS_moderate", "NAS", f"{SNAS} SNAS_moderate"),
    Entry("NASNet_A", "NAS", f"{DARTS} NASNet", (_wsr("3.3"), _rnas("4.3", "1-4")),
          note="RNAS' 4.3 M counts the auxiliary head: 4.289 M"),
    Entry("AmoebaNet_A", "NAS", f"{DARTS} AmoebaNet", (_wsr("3.2"), _rnas("3.2", "1-4"))),
    Entry("PNAS", "NAS", f"{RNAS} PNAS", (_rnas("4.5", "1-4"),)),
    Entry("E2RNAS", "robust NAS", "yuezhixiong/NAS-Benchmark DARTS/genotypes.py@a288b6c2 "
          "woOodAug_LL_acc1_ood1_UL_adv_nop_ood_flp_mgda_abs40_gnl2", (_wsr("4.0"),), (46, 20), note=WIDTH_UNKNOWN),
    Entry("NAS_OoD_twostage", "robust NAS", f"{NAS_OOD} NASOOD_twostage", (_wsr("4.4"),), (42, 20),
          note=f"which of the three cells is not published; {WIDTH_UNKNOWN}"),
    Entry("NAS_OoD_onestage", "robust NAS", f"{NAS_OOD} NASOOD_onestage", (_wsr("4.4"),), (41, 20),
          note="as NAS_OoD_twostage"),
    Entry("NAS_OoD_ImageNet", "robust NAS", f"{NAS_OOD} NASOOD_ImageNet", (_wsr("4.4"),), (38, 20),
          note="as NAS_OoD_twostage"),
    Entry("PVLL", "NAS", "Linwei-Tao/Focal-Loss-Search genotypes.py@214368c0 PVLL_NAS", (_wsr("3.5"),)),
    Entry("LRNAS_cifar10", "robust NAS", f"{LRNAS} search_cifar10"),
    Entry("LRNAS_cifar100", "robust NAS", f"{LRNAS} search_cifar100"),
    Entry("TRNAS_c10", "robust NAS", f"{TRNAS} TRNAS_c10"),
    Entry("RNTK", "robust NAS", f"{TRNAS} RNTK"),
    Entry("REP_PGD", "robust NAS", f"{TRNAS} REP_PGD"),
    Entry("A3D_DE_AAA", "robust NAS", "Jialiang14/AAAD retrain/genotypes.py@f67c8fc9 DE_NAS_AAA"),
    Entry("CRoZe_cifar10", "robust NAS", f"{TRNAS} CROZE", note="all 14 edges of a cell"),
)


def _own_design(name: str, family: str, source: str, reported: tuple[Reported, ...] = (), note: str = "",
                imagenet_width: int = 0) -> Entry:
    """A network with a depth of its own."""
    width = hand_designed.published_width(name)
    return Entry(name, family, source, reported, (width, None), (imagenet_width or width, None), note)


def _robnet(name: str, source: str, reported: tuple[Reported, ...] = (), note: str = "") -> Entry:
    return _own_design(name, "robust NAS", source, reported, note, ROBNET_IMAGENET_WIDTH)


_NETWORKS = (
    _robnet("robnet_small", "zhicheng2T0/Wsr-NAS search/architecture_code.py@7736f5da", (_wsr("4.4"),),
            "the only public copy; RobNet's paper says 4.41 M"),
    _robnet("robnet_large_v1", ROBNETS, (_wsr("6.9"), _rnas("6.9", "1, 3, 4")),
            "6.94 M if its BatchNorm layers had scale and shift"),
    _robnet("robnet_large_v2", ROBNETS),
    _robnet("robnet_free", ROBNETS, note="RobNet's paper says 5.49 M"),
    _own_design("resnet18", "hand-designed", "He et al., CVPR 2016", (_wsr("11.2"), _rnas("11.2", "1-4"))),
    _own_design("resnet50", "hand-designed", "He et al., CVPR 2016", (_wsr("23.5"), _wsr_imagenet("23.5")),
                "Wsr-NAS' figure for ImageNet leaves out the 1000-class layer"),
    _own_design("wrn_28_10", "hand-designed", "Zagoruyko and Komodakis, BMVC 2016"),
    _own_design("wrn_34_10", "hand-designed", "Zagoruyko and Komodakis, BMVC 2016", (_wsr("46.2"),)),
    _own_design("vgg16", "hand-designed", "Simonyan and Zisserman, ICLR 2015", (_rnas("14.7", "1, 2, 4"),)),
    _own_design("vgg16_4096", "hand-designed", "Simonyan and Zisserman, ICLR 2015", (_rnas("34", "3"),),
                "34.0 M for the 100 classes of that table"),
    _own_design("densenet121", "hand-designed", "Huang et al., CVPR 2017", (_rnas("7.0", "1, 2"),)),
    _own_design("mobilenet_v2", "hand-designed", "Sandler et al., CVPR 2018", (_rnas("2.3", "1-4"),)),
    _own_design("shufflenet_v2", "hand-designed", "Ma et al., ECCV 2018", (_rnas("1.3", "1-4"),)),
    _own_design("squeezenet", "hand-designed", "Iandola et al., 2016", (_rnas("0.7", "1"),)),
)

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in (*_CELLS, *_NETWORKS)}


@dataclass(frozen=True)
class Unavailable:
    """An architecture of the tables that cannot be built, and why."""

    name: str
    reported: tuple[Reported, ...]
    reason: str


_NOT_NAMED = "the Wsr-NAS repository holds cells without saying which, if any, this is"
UNAVAILABLE: dict[str, Unavailable] = {entry.name: entry for entry in (
    Unavailable("DSRNA", (_rnas("5.4", "1, 3, 4"),), "published as a drawing alone (CVPR 2021), without code or text"),
    Unavailable("RobNet_medium", (_wsr("5.7"),), "RobNet's authors released large, large v2 and free alone"),
    Unavailable("WsrNet_Naive_1", (_wsr("4.4"),), _NOT_NAMED),
    Unavailable("WsrNet_Naive_3", (_wsr("4.5"),), _NOT_NAMED),
    Unavailable("WsrNet_Naive_6", (_wsr("4.4"),), _NOT_NAMED),
    Unavailable("WsrNet_Naive_11", (Reported("Wsr-NAS", "3"),), _NOT_NAMED),
    Unavailable("MetaQNN", (Reported("Wsr-NAS", "3"),), "named for its search time alone"),
)}

_MISSING = {plain(name): entry for name, entry in UNAVAILABLE.items()} | {plain("RobNet-M"):
                                                                           UNAVAILABLE["RobNet_medium"]}


def find(spec: str) -> str | None:
    """The name in ``ENTRIES`` that is meant, aliases included, however it is spelled."""
    return cells.find(spec) or hand_designed.find(spec)


def why_unavailable(spec: str) -> str | None:
    """Why there is no such architecture, if it is one that was never published."""
    missing = _MISSING.get(plain(spec))
    return f"{missing.name} cannot be built: {missing.reason}" if missing else None


def closest(spec: str) -> list[str]:
    """Names that ``spec`` may be a misspelling of."""
    return list(dict.fromkeys(map(find, closest_of(spec, [*ENTRIES, *cells.ALIASES]))))
