"""The public names of ``wsrnas`` for editors and type checkers; ``__init__.py`` imports each when it is used."""

from wsrnas.__main__ import run as run
from wsrnas.__main__ import use_programs as use_programs
from wsrnas.architectures.cells import load as load_cell
from wsrnas.attacks import attack_mode as attack_mode
from wsrnas.attacks import fgsm as fgsm
from wsrnas.attacks import pgd as pgd
from wsrnas.complexity import count_parameters as count_parameters
from wsrnas.complexity import multiply_adds as multiply_adds
from wsrnas.data.datasets import load_dataset as load_dataset
from wsrnas.data.image_set import Augmentation as Augmentation
from wsrnas.data.image_set import DataSet as DataSet
from wsrnas.data.loader import BatchLoader as BatchLoader
from wsrnas.data.own import own_data as own_data
from wsrnas.estimators import build_estimator as build_estimator
from wsrnas.evaluation import robust_accuracy as robust_accuracy
from wsrnas.evaluation.results import differences as differences
from wsrnas.genotype import Genotype as Genotype
from wsrnas.models import build_model as build_model
from wsrnas.models import names as model_names
from wsrnas.network import NetworkCIFAR as NetworkCIFAR
from wsrnas.network import NetworkImageNet as NetworkImageNet
from wsrnas.report import write_report as write_report
from wsrnas.report.curve import draw_curve as draw_curve
from wsrnas.report.figures.cells import draw_genotype as draw_cell
from wsrnas.runtime.errors import InputError as InputError
from wsrnas.subjects.from_python import evaluate as evaluate
from wsrnas.subjects.from_python import result_table as result_table
from wsrnas.subjects.opening import open_model as open_model
from wsrnas.subjects.saving import save_model as save_model
from wsrnas.training.simple import train as train

__version__: str

__all__ = [
    "Augmentation",
    "BatchLoader",
    "DataSet",
    "Genotype",
    "InputError",
    "NetworkCIFAR",
    "NetworkImageNet",
    "__version__",
    "attack_mode",
    "build_estimator",
    "build_model",
    "count_parameters",
    "differences",
    "draw_cell",
    "draw_curve",
    "evaluate",
    "fgsm",
    "load_cell",
    "load_dataset",
    "model_names",
    "multiply_adds",
    "open_model",
    "own_data",
    "pgd",
    "result_table",
    "robust_accuracy",
    "run",
    "save_model",
    "train",
    "use_programs",
    "write_report",
]
