"""Published cells as literals, under their usual names; ``load`` takes a name, an alias or a file.

Where each was published says ``wsrnas.architectures.catalogue``.
"""

import os
from pathlib import Path

from wsrnas.genotype import Genotype
from wsrnas.runtime import run_files
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.spelling import closest, plain

PUBLISHED: dict[str, Genotype] = {
    "WsrNet_Basic": Genotype(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("avg_pool_3x3", 1), ("sep_conv_5x5", 0)],
        reduce=[("sep_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("avg_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "WsrNet_Plus": Genotype(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_3x3", 3), ("dil_conv_5x5", 2), ("sep_conv_5x5", 0), ("avg_pool_3x3", 1)],
        reduce=[("sep_conv_3x3", 1), ("dil_conv_3x3", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "WsrNet_M": Genotype(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("avg_pool_3x3", 1), ("sep_conv_3x3", 0)],
        reduce=[("sep_conv_3x3", 1), ("dil_conv_5x5", 0), ("max_pool_3x3", 1), ("avg_pool_3x3", 2),
                ("dil_conv_5x5", 2), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("avg_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "WsrNet_M_1": Genotype(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("sep_conv_5x5", 0), ("avg_pool_3x3", 1)],
        reduce=[("sep_conv_3x3", 1), ("dil_conv_3x3", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "WsrNet_N": Genotype(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("max_pool_3x3", 0), ("skip_connect", 4)],
        reduce=[("dil_conv_5x5", 0), ("sep_conv_3x3", 1), ("max_pool_3x3", 1), ("avg_pool_3x3", 2),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("max_pool_3x3", 2), ("dil_conv_3x3", 0)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "WsrNet_R_minus": Genotype(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("sep_conv_5x5", 0), ("sep_conv_5x5", 3)],
        reduce=[("dil_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "RACL": Genotype(
        normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("skip_connect", 1),
                ("sep_conv_3x3", 0), ("skip_connect", 3), ("sep_conv_3x3", 3), ("skip_connect", 4)],
        reduce=[("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1),
                ("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2), ("dil_conv_3x3", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "AdvRush": Genotype(
        normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("sep_conv_3x3", 1),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1)],
        reduce=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2),
                ("skip_connect", 0), ("avg_pool_3x3", 1), ("skip_connect", 0), ("skip_connect", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "RNAS_repo_H": Genotype(
        normal=[("dil_conv_5x5", 0), ("dil_conv_5x5", 1), ("dil_conv_5x5", 0), ("dil_conv_3x3", 1),
                ("dil_conv_5x5", 3), ("sep_conv_5x5", 0), ("dil_conv_5x5", 0), ("dil_conv_3x3", 2)],
        reduce=[("avg_pool_3x3", 1), ("dil_conv_5x5", 0), ("dil_conv_5x5", 2), ("sep_conv_5x5", 0),
                ("sep_conv_3x3", 3), ("skip_connect", 0), ("sep_conv_5x5", 0), ("sep_conv_5x5", 4)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "RNAS_repo_L": Genotype(
        normal=[("dil_conv_5x5", 0), ("dil_conv_5x5", 1), ("skip_connect", 2), ("dil_conv_5x5", 0),
                ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("skip_connect", 2)],
        reduce=[("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("sep_conv_5x5", 2), ("sep_conv_3x3", 1),
                ("dil_conv_3x3", 3), ("dil_conv_5x5", 2), ("sep_conv_5x5", 3), ("sep_conv_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "DARTS_V1": Genotype(
        normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
                ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2)],
        reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
                ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "DARTS_V2": Genotype(
        normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
                ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)],
        reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
                ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "PC_DARTS": Genotype(
        normal=[("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1),
                ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1)],
        reduce=[("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 2),
                ("sep_conv_3x3", 0), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "PC_DARTS_ImageNet": Genotype(
        normal=[("skip_connect", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 0), ("skip_connect", 1),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4)],
        reduce=[("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 2), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("sep_conv_3x3", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "P_DARTS": Genotype(
        normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 1),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 0), ("dil_conv_5x5", 4)],
        reduce=[("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 2),
                ("max_pool_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_3x3", 1), ("dil_conv_5x5", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "SNAS_mild": Genotype(
        normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 1),
                ("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 0), ("sep_conv_3x3", 1)],
        reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("max_pool_3x3", 1), ("skip_connect", 2),
                ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0), ("dil_conv_5x5", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "SNAS_moderate": Genotype(
        normal=[("dil_conv_5x5", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("skip_connect", 1),
                ("skip_connect", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 1)],
        reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("sep_conv_5x5", 0), ("dil_conv_5x5", 1),
                ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "NASNet_A": Genotype(
        normal=[("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("sep_conv_3x3", 0),
                ("avg_pool_3x3", 1), ("skip_connect", 0), ("avg_pool_3x3", 0), ("avg_pool_3x3", 0),
                ("sep_conv_3x3", 1), ("skip_connect", 1)],
        reduce=[("sep_conv_5x5", 1), ("sep_conv_7x7", 0), ("max_pool_3x3", 1), ("sep_conv_7x7", 0),
                ("avg_pool_3x3", 1), ("sep_conv_5x5", 0), ("skip_connect", 3), ("avg_pool_3x3", 2),
                ("sep_conv_3x3", 2), ("max_pool_3x3", 1)],
        normal_concat=[2, 3, 4, 5, 6], reduce_concat=[4, 5, 6],
    ),
    "AmoebaNet_A": Genotype(
        normal=[("avg_pool_3x3", 0), ("max_pool_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 2),
                ("sep_conv_3x3", 0), ("avg_pool_3x3", 3), ("sep_conv_3x3", 1), ("skip_connect", 1),
                ("skip_connect", 0), ("avg_pool_3x3", 1)],
        reduce=[("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("max_pool_3x3", 0), ("sep_conv_7x7", 2),
                ("sep_conv_7x7", 0), ("avg_pool_3x3", 1), ("max_pool_3x3", 0), ("max_pool_3x3", 1),
                ("conv_7x1_1x7", 0), ("sep_conv_3x3", 5)],
        normal_concat=[4, 5, 6], reduce_concat=[3, 4, 6],
    ),
    "PNAS": Genotype(
        normal=[("sep_conv_5x5", 0), ("max_pool_3x3", 0), ("sep_conv_7x7", 1), ("max_pool_3x3", 1),
                ("sep_conv_5x5", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 0), ("skip_connect", 1)],
        reduce=[("sep_conv_5x5", 0), ("max_pool_3x3", 0), ("sep_conv_7x7", 1), ("max_pool_3x3", 1),
                ("sep_conv_5x5", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 0), ("skip_connect", 1)],
        normal_concat=[2, 3, 4, 5, 6], reduce_concat=[2, 3, 4, 5, 6],
    ),
    "E2RNAS": Genotype(
        normal=[("avg_pool_3x3", 0), ("skip_connect", 1), ("avg_pool_3x3", 0), ("sep_conv_3x3", 2),
                ("sep_conv_5x5", 3), ("avg_pool_3x3", 0), ("sep_conv_5x5", 2), ("avg_pool_3x3", 0)],
        reduce=[("avg_pool_3x3", 0), ("avg_pool_3x3", 1), ("avg_pool_3x3", 1), ("avg_pool_3x3", 0),
                ("avg_pool_3x3", 0), ("skip_connect", 3), ("skip_connect", 3), ("avg_pool_3x3", 0)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "NAS_OoD_twostage": Genotype(
        normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("sep_conv_5x5", 0), ("dil_conv_3x3", 2),
                ("dil_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 2), ("skip_connect", 0)],
        reduce=[("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("dil_conv_5x5", 2), ("max_pool_3x3", 1),
                ("dil_conv_5x5", 3), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4), ("sep_conv_5x5", 1)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "NAS_OoD_onestage": Genotype(
        normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2),
                ("avg_pool_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2)],
        reduce=[("avg_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 0), ("max_pool_3x3", 1),
                ("sep_conv_5x5", 1), ("avg_pool_3x3", 0), ("max_pool_3x3", 0), ("dil_conv_5x5", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "NAS_OoD_ImageNet": Genotype(
        normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 2),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4)],
        reduce=[("skip_connect", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 0),
                ("sep_conv_3x3", 0), ("skip_connect", 2), ("sep_conv_3x3", 2), ("skip_connect", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "PVLL": Genotype(
        normal=[("sep_conv_5x5", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0),
                ("avg_pool_3x3", 3), ("dil_conv_5x5", 1), ("sep_conv_3x3", 1), ("max_pool_3x3", 0)],
        reduce=[("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 2),
                ("dil_conv_5x5", 2), ("sep_conv_5x5", 0), ("dil_conv_3x3", 1), ("skip_connect", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "LRNAS_cifar10": Genotype(
        normal=[("max_pool_3x3", 1), ("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0),
                ("sep_conv_3x3", 2), ("avg_pool_3x3", 1), ("max_pool_3x3", 3), ("max_pool_3x3", 0)],
        reduce=[("none", 0), ("none", 1), ("sep_conv_5x5", 2), ("max_pool_3x3", 0),
                ("avg_pool_3x3", 2), ("skip_connect", 1), ("max_pool_3x3", 3), ("skip_connect", 4)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "LRNAS_cifar100": Genotype(
        normal=[("avg_pool_3x3", 0), ("none", 1), ("skip_connect", 0), ("skip_connect", 2),
                ("sep_conv_5x5", 3), ("skip_connect", 2), ("max_pool_3x3", 4), ("sep_conv_5x5", 1)],
        reduce=[("none", 0), ("skip_connect", 1), ("none", 0), ("none", 1),
                ("max_pool_3x3", 1), ("none", 0), ("skip_connect", 4), ("sep_conv_3x3", 0)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "TRNAS_c10": Genotype(
        normal=[("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 1), ("skip_connect", 0),
                ("avg_pool_3x3", 1), ("sep_conv_5x5", 3), ("skip_connect", 1), ("sep_conv_5x5", 4)],
        reduce=[("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1),
                ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 1), ("sep_conv_5x5", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "RNTK": Genotype(
        normal=[("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 1),
                ("skip_connect", 2), ("sep_conv_3x3", 3), ("dil_conv_3x3", 2), ("skip_connect", 4)],
        reduce=[("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 1),
                ("avg_pool_3x3", 0), ("skip_connect", 3), ("max_pool_3x3", 4), ("skip_connect", 1)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "REP_PGD": Genotype(
        normal=[("skip_connect", 1), ("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 0),
                ("sep_conv_3x3", 3), ("dil_conv_5x5", 1), ("dil_conv_3x3", 3), ("sep_conv_3x3", 4)],
        reduce=[("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2),
                ("sep_conv_3x3", 2), ("sep_conv_5x5", 1), ("max_pool_3x3", 4), ("max_pool_3x3", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "A3D_DE_AAA": Genotype(
        normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 2), ("sep_conv_3x3", 1),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1)],
        reduce=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2),
                ("skip_connect", 1), ("avg_pool_3x3", 1), ("dil_conv_3x3", 0), ("skip_connect", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
    ),
    "CRoZe_cifar10": Genotype(
        normal=[[("avg_pool_3x3", 0), ("dil_conv_3x3", 1)],
                [("dil_conv_5x5", 0), ("dil_conv_3x3", 1), ("max_pool_3x3", 2)],
                [("sep_conv_3x3", 0), ("avg_pool_3x3", 1), ("skip_connect", 2), ("dil_conv_3x3", 3)],
                [("sep_conv_5x5", 0), ("dil_conv_5x5", 1), ("sep_conv_3x3", 2),
                 ("skip_connect", 3), ("sep_conv_7x7", 4)]],
        reduce=[[("avg_pool_3x3", 0), ("sep_conv_5x5", 1)],
                [("conv_7x1_1x7", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 2)],
                [("conv_7x1_1x7", 0), ("sep_conv_7x7", 1), ("dil_conv_3x3", 2), ("dil_conv_3x3", 3)],
                [("dil_conv_3x3", 0), ("sep_conv_7x7", 1), ("conv_7x1_1x7", 2),
                 ("dil_conv_3x3", 3), ("sep_conv_3x3", 4)]],
        normal_concat=[4, 5, 3, 4], reduce_concat=[3, 2, 5, 5],
    ),
}

ALIASES: dict[str, str] = {
    "WsrNet_Robust": "WsrNet_Basic",  # the same cell under another training recipe
    "cna_r": "WsrNet_Basic",
    "cna_m": "WsrNet_M",
    "cna_m_1": "WsrNet_M_1",
    "cna_n": "WsrNet_N",
    "cna_r_minus": "WsrNet_R_minus",
}

_BY_PLAIN_NAME = {plain(name): name for name in PUBLISHED} | {plain(a): name for a, name in ALIASES.items()}


def names() -> list[str]:
    """The published names, without aliases."""
    return list(PUBLISHED)


def find(spec: str) -> str | None:
    """The name in ``names()`` that is meant; upper and lower case, with or without "-" and "_", are the same."""
    return _BY_PLAIN_NAME.get(plain(spec))


def load(spec: str | Path) -> Genotype:
    """The genotype called ``spec``.

    Args:
        spec: a published name or alias, spelled as ``find`` takes it, or else the path of a genotype's JSON file or of
            a run directory that holds ``genotype.json``.
    Raises:
        InputError: there is no such name or file, or the file is not a genotype.
    """
    spec = os.fspath(spec)
    if name := find(spec):
        return PUBLISHED[name]
    if os.path.isdir(spec):
        file = Path(spec, run_files.GENOTYPE)
        if not file.exists():
            raise InputError(f"the directory {spec} holds no genotype.json; expected that of a run")
        return Genotype.load(file)
    if os.path.exists(spec):
        return Genotype.load(spec)
    if is_path(spec):
        raise InputError(f"the genotype file {spec} does not exist; expected a JSON file or a run directory")
    near = list(dict.fromkeys(find(name) for name in closest(spec, [*PUBLISHED, *ALIASES])))
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise InputError(f"unknown architecture {spec!r}{hint} known names: {', '.join(PUBLISHED)}; "
                     f"aliases: {', '.join(ALIASES)}; or give the path of a genotype JSON or of a run directory")


def is_path(spec: str) -> bool:
    """Whether ``spec`` can only be meant as a file or folder."""
    return "/" in spec or os.sep in spec or spec.endswith(".json")
