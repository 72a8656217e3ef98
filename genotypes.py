"""Published cells as literals, under their usual names; ``load`` takes a name, an alias or a file.

Each cell's comment says where it was published: repository, file, commit, symbol.
"""

import difflib
import os
from pathlib import Path

from wsrnas.errors import InputError
from wsrnas.genotype import Genotype

# zhicheng2T0/Wsr-NAS retrain/genotypes.py at 7736f5da: cna_r (README: WsrNet-Basic and WsrNet-Robust)
WSRNET_BASIC = Genotype(
    normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
            ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("avg_pool_3x3", 1), ("sep_conv_5x5", 0)],
    reduce=[("sep_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
            ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("avg_pool_3x3", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# zhicheng2T0/Wsr-NAS retrain/genotypes.py at 7736f5da: WsrNet_Plus
WSRNET_PLUS = Genotype(
    normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
            ("dil_conv_3x3", 3), ("dil_conv_5x5", 2), ("sep_conv_5x5", 0), ("avg_pool_3x3", 1)],
    reduce=[("sep_conv_3x3", 1), ("dil_conv_3x3", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
            ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# zhicheng2T0/Wsr-NAS retrain/genotypes.py at 7736f5da: cna_m
WSRNET_M = Genotype(
    normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
            ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("avg_pool_3x3", 1), ("sep_conv_3x3", 0)],
    reduce=[("sep_conv_3x3", 1), ("dil_conv_5x5", 0), ("max_pool_3x3", 1), ("avg_pool_3x3", 2),
            ("dil_conv_5x5", 2), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("avg_pool_3x3", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# zhicheng2T0/Wsr-NAS retrain/genotypes.py at 7736f5da: cna_m_1
# The same graph as WsrNet_Plus: two edges of node 4 are listed in the other order; Plus is retrained wider.
WSRNET_M_1 = Genotype(
    normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
            ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("sep_conv_5x5", 0), ("avg_pool_3x3", 1)],
    reduce=[("sep_conv_3x3", 1), ("dil_conv_3x3", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
            ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# zhicheng2T0/Wsr-NAS retrain/genotypes.py at 7736f5da: cna_n
WSRNET_N = Genotype(
    normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
            ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("max_pool_3x3", 0), ("skip_connect", 4)],
    reduce=[("dil_conv_5x5", 0), ("sep_conv_3x3", 1), ("max_pool_3x3", 1), ("avg_pool_3x3", 2),
            ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("max_pool_3x3", 2), ("dil_conv_3x3", 0)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# zhicheng2T0/Wsr-NAS test_AN_estimator/genotypes.py at 7736f5da: cna_r_minus
WSRNET_R_MINUS = Genotype(
    normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
            ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("sep_conv_5x5", 0), ("sep_conv_5x5", 3)],
    reduce=[("dil_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
            ("dil_conv_5x5", 2), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# nutellamok/advrush advrush/genotypes.py at a15b26a4: RACL
RACL = Genotype(
    normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("skip_connect", 1),
            ("sep_conv_3x3", 0), ("skip_connect", 3), ("sep_conv_3x3", 3), ("skip_connect", 4)],
    reduce=[("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1),
            ("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2), ("dil_conv_3x3", 3)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# nutellamok/advrush advrush/genotypes.py at a15b26a4: ADVRUSH
ADVRUSH = Genotype(
    normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1)],
    reduce=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2),
            ("skip_connect", 0), ("avg_pool_3x3", 1), ("skip_connect", 0), ("skip_connect", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# hye999/RNAS genotypes.py at f85107e6: RNAS_H (3.50 M, which the paper's text calls RNAS-L)
RNAS_REPO_H = Genotype(
    normal=[("dil_conv_5x5", 0), ("dil_conv_5x5", 1), ("dil_conv_5x5", 0), ("dil_conv_3x3", 1),
            ("dil_conv_5x5", 3), ("sep_conv_5x5", 0), ("dil_conv_5x5", 0), ("dil_conv_3x3", 2)],
    reduce=[("avg_pool_3x3", 1), ("dil_conv_5x5", 0), ("dil_conv_5x5", 2), ("sep_conv_5x5", 0),
            ("sep_conv_3x3", 3), ("skip_connect", 0), ("sep_conv_5x5", 0), ("sep_conv_5x5", 4)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# hye999/RNAS genotypes.py at f85107e6: RNAS_L (3.17 M, which the paper's text calls RNAS-H)
RNAS_REPO_L = Genotype(
    normal=[("dil_conv_5x5", 0), ("dil_conv_5x5", 1), ("skip_connect", 2), ("dil_conv_5x5", 0),
            ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("skip_connect", 2)],
    reduce=[("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("sep_conv_5x5", 2), ("sep_conv_3x3", 1),
            ("dil_conv_3x3", 3), ("dil_conv_5x5", 2), ("sep_conv_5x5", 3), ("sep_conv_3x3", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# quark0/darts cnn/genotypes.py at f276dd34: DARTS_V1
DARTS_V1 = Genotype(
    normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
            ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2)],
    reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
            ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# quark0/darts cnn/genotypes.py at f276dd34: DARTS_V2
DARTS_V2 = Genotype(
    normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)],
    reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
            ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# yuhuixu1993/PC-DARTS genotypes.py at b74702f8: PC_DARTS_cifar
PC_DARTS = Genotype(
    normal=[("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1),
            ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1)],
    reduce=[("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 2),
            ("sep_conv_3x3", 0), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# yuhuixu1993/PC-DARTS genotypes.py at b74702f8: PC_DARTS_image
PC_DARTS_IMAGENET = Genotype(
    normal=[("skip_connect", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 0), ("skip_connect", 1),
            ("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4)],
    reduce=[("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("max_pool_3x3", 1),
            ("sep_conv_3x3", 2), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("sep_conv_3x3", 3)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# chenxin061/pdarts genotypes.py at b880e873: PDARTS
P_DARTS = Genotype(
    normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 0), ("dil_conv_5x5", 4)],
    reduce=[("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 2),
            ("max_pool_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_3x3", 1), ("dil_conv_5x5", 3)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# SNAS-Series/SNAS-Series SNAS/genotypes.py at 9a43adbd: SNAS_mild
SNAS_MILD = Genotype(
    normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 1),
            ("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 0), ("sep_conv_3x3", 1)],
    reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("max_pool_3x3", 1), ("skip_connect", 2),
            ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0), ("dil_conv_5x5", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# SNAS-Series/SNAS-Series SNAS/genotypes.py at 9a43adbd: SNAS_moderate
SNAS_MODERATE = Genotype(
    normal=[("dil_conv_5x5", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("skip_connect", 1),
            ("skip_connect", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 1)],
    reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("sep_conv_5x5", 0), ("dil_conv_5x5", 1),
            ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# quark0/darts cnn/genotypes.py at f276dd34: NASNet
NASNET_A = Genotype(
    normal=[("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("sep_conv_3x3", 0),
            ("avg_pool_3x3", 1), ("skip_connect", 0), ("avg_pool_3x3", 0), ("avg_pool_3x3", 0),
            ("sep_conv_3x3", 1), ("skip_connect", 1)],
    reduce=[("sep_conv_5x5", 1), ("sep_conv_7x7", 0), ("max_pool_3x3", 1), ("sep_conv_7x7", 0),
            ("avg_pool_3x3", 1), ("sep_conv_5x5", 0), ("skip_connect", 3), ("avg_pool_3x3", 2),
            ("sep_conv_3x3", 2), ("max_pool_3x3", 1)],
    normal_concat=[2, 3, 4, 5, 6], reduce_concat=[4, 5, 6],
)

# quark0/darts cnn/genotypes.py at f276dd34: AmoebaNet
AMOEBANET_A = Genotype(
    normal=[("avg_pool_3x3", 0), ("max_pool_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 2),
            ("sep_conv_3x3", 0), ("avg_pool_3x3", 3), ("sep_conv_3x3", 1), ("skip_connect", 1),
            ("skip_connect", 0), ("avg_pool_3x3", 1)],
    reduce=[("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("max_pool_3x3", 0), ("sep_conv_7x7", 2),
            ("sep_conv_7x7", 0), ("avg_pool_3x3", 1), ("max_pool_3x3", 0), ("max_pool_3x3", 1),
            ("conv_7x1_1x7", 0), ("sep_conv_3x3", 5)],
    normal_concat=[4, 5, 6], reduce_concat=[3, 4, 6],
)

# hye999/RNAS genotypes.py at f85107e6: PNAS
PNAS = Genotype(
    normal=[("sep_conv_5x5", 0), ("max_pool_3x3", 0), ("sep_conv_7x7", 1), ("max_pool_3x3", 1),
            ("sep_conv_5x5", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 1),
            ("sep_conv_3x3", 0), ("skip_connect", 1)],
    reduce=[("sep_conv_5x5", 0), ("max_pool_3x3", 0), ("sep_conv_7x7", 1), ("max_pool_3x3", 1),
            ("sep_conv_5x5", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 1),
            ("sep_conv_3x3", 0), ("skip_connect", 1)],
    normal_concat=[2, 3, 4, 5, 6], reduce_concat=[2, 3, 4, 5, 6],
)

# yuezhixiong/NAS-Benchmark DARTS/genotypes.py: woOodAug_LL_acc1_ood1_UL_adv_nop_ood_flp_mgda_abs40_gnl2
E2RNAS = Genotype(
    normal=[("avg_pool_3x3", 0), ("skip_connect", 1), ("avg_pool_3x3", 0), ("sep_conv_3x3", 2),
            ("sep_conv_5x5", 3), ("avg_pool_3x3", 0), ("sep_conv_5x5", 2), ("avg_pool_3x3", 0)],
    reduce=[("avg_pool_3x3", 0), ("avg_pool_3x3", 1), ("avg_pool_3x3", 1), ("avg_pool_3x3", 0),
            ("avg_pool_3x3", 0), ("skip_connect", 3), ("skip_connect", 3), ("avg_pool_3x3", 0)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# HaoyueBaiZJU/NAS-OoD tools/genotypes.py at 13a63ad9: NASOOD_twostage
NAS_OOD_TWOSTAGE = Genotype(
    normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("sep_conv_5x5", 0), ("dil_conv_3x3", 2),
            ("dil_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 2), ("skip_connect", 0)],
    reduce=[("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("dil_conv_5x5", 2), ("max_pool_3x3", 1),
            ("dil_conv_5x5", 3), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4), ("sep_conv_5x5", 1)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# HaoyueBaiZJU/NAS-OoD tools/genotypes.py at 13a63ad9: NASOOD_onestage
NAS_OOD_ONESTAGE = Genotype(
    normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2),
            ("avg_pool_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2)],
    reduce=[("avg_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 0), ("max_pool_3x3", 1),
            ("sep_conv_5x5", 1), ("avg_pool_3x3", 0), ("max_pool_3x3", 0), ("dil_conv_5x5", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# HaoyueBaiZJU/NAS-OoD tools/genotypes.py at 13a63ad9: NASOOD_ImageNet
NAS_OOD_IMAGENET = Genotype(
    normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 2),
            ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4)],
    reduce=[("skip_connect", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 0),
            ("sep_conv_3x3", 0), ("skip_connect", 2), ("sep_conv_3x3", 2), ("skip_connect", 3)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# Linwei-Tao/Focal-Loss-Search genotypes.py at 214368c0: PVLL_NAS
PVLL = Genotype(
    normal=[("sep_conv_5x5", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0),
            ("avg_pool_3x3", 3), ("dil_conv_5x5", 1), ("sep_conv_3x3", 1), ("max_pool_3x3", 0)],
    reduce=[("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 2),
            ("dil_conv_5x5", 2), ("sep_conv_5x5", 0), ("dil_conv_3x3", 1), ("skip_connect", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# fyqsama/LRNAS genotypes.py at aa13ec24: search_cifar10
LRNAS_CIFAR10 = Genotype(
    normal=[("max_pool_3x3", 1), ("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0),
            ("sep_conv_3x3", 2), ("avg_pool_3x3", 1), ("max_pool_3x3", 3), ("max_pool_3x3", 0)],
    reduce=[("none", 0), ("none", 1), ("sep_conv_5x5", 2), ("max_pool_3x3", 0),
            ("avg_pool_3x3", 2), ("skip_connect", 1), ("max_pool_3x3", 3), ("skip_connect", 4)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# fyqsama/LRNAS genotypes.py at aa13ec24: search_cifar100
LRNAS_CIFAR100 = Genotype(
    normal=[("avg_pool_3x3", 0), ("none", 1), ("skip_connect", 0), ("skip_connect", 2),
            ("sep_conv_5x5", 3), ("skip_connect", 2), ("max_pool_3x3", 4), ("sep_conv_5x5", 1)],
    reduce=[("none", 0), ("skip_connect", 1), ("none", 0), ("none", 1),
            ("max_pool_3x3", 1), ("none", 0), ("skip_connect", 4), ("sep_conv_3x3", 0)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# fly2tortoise/TRNAS 2_Darts_space/eval/genotypes.py at 66b668f3: TRNAS_c10
TRNAS_C10 = Genotype(
    normal=[("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 1), ("skip_connect", 0),
            ("avg_pool_3x3", 1), ("sep_conv_5x5", 3), ("skip_connect", 1), ("sep_conv_5x5", 4)],
    reduce=[("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1),
            ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 1), ("sep_conv_5x5", 3)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# fly2tortoise/TRNAS 2_Darts_space/eval/genotypes.py at 66b668f3: RNTK
RNTK = Genotype(
    normal=[("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 1),
            ("skip_connect", 2), ("sep_conv_3x3", 3), ("dil_conv_3x3", 2), ("skip_connect", 4)],
    reduce=[("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 1),
            ("avg_pool_3x3", 0), ("skip_connect", 3), ("max_pool_3x3", 4), ("skip_connect", 1)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# fly2tortoise/TRNAS 2_Darts_space/eval/genotypes.py at 66b668f3: REP_PGD
REP_PGD = Genotype(
    normal=[("skip_connect", 1), ("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 0),
            ("sep_conv_3x3", 3), ("dil_conv_5x5", 1), ("dil_conv_3x3", 3), ("sep_conv_3x3", 4)],
    reduce=[("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2),
            ("sep_conv_3x3", 2), ("sep_conv_5x5", 1), ("max_pool_3x3", 4), ("max_pool_3x3", 3)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# Jialiang14/AAAD retrain/genotypes.py at f67c8fc9: DE_NAS_AAA
A3D_DE_AAA = Genotype(
    normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 2), ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1)],
    reduce=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2),
            ("skip_connect", 1), ("avg_pool_3x3", 1), ("dil_conv_3x3", 0), ("skip_connect", 2)],
    normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5],
)

# fly2tortoise/TRNAS 2_Darts_space/eval/genotypes.py at 66b668f3: CROZE (all 14 edges)
CROZE_CIFAR10 = Genotype(
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
)

PUBLISHED: dict[str, Genotype] = {
    "WsrNet_Basic": WSRNET_BASIC,
    "WsrNet_Plus": WSRNET_PLUS,
    "WsrNet_M": WSRNET_M,
    "WsrNet_M_1": WSRNET_M_1,
    "WsrNet_N": WSRNET_N,
    "WsrNet_R_minus": WSRNET_R_MINUS,
    "RACL": RACL,
    "AdvRush": ADVRUSH,
    "RNAS_repo_H": RNAS_REPO_H,
    "RNAS_repo_L": RNAS_REPO_L,
    "DARTS_V1": DARTS_V1,
    "DARTS_V2": DARTS_V2,
    "PC_DARTS": PC_DARTS,
    "PC_DARTS_ImageNet": PC_DARTS_IMAGENET,
    "P_DARTS": P_DARTS,
    "SNAS_mild": SNAS_MILD,
    "SNAS_moderate": SNAS_MODERATE,
    "NASNet_A": NASNET_A,
    "AmoebaNet_A": AMOEBANET_A,
    "PNAS": PNAS,
    "E2RNAS": E2RNAS,
    "NAS_OoD_twostage": NAS_OOD_TWOSTAGE,
    "NAS_OoD_onestage": NAS_OOD_ONESTAGE,
    "NAS_OoD_ImageNet": NAS_OOD_IMAGENET,
    "PVLL": PVLL,
    "LRNAS_cifar10": LRNAS_CIFAR10,
    "LRNAS_cifar100": LRNAS_CIFAR100,
    "TRNAS_c10": TRNAS_C10,
    "RNTK": RNTK,
    "REP_PGD": REP_PGD,
    "A3D_DE_AAA": A3D_DE_AAA,
    "CRoZe_cifar10": CROZE_CIFAR10,
}

ALIASES: dict[str, str] = {
    "WsrNet_Robust": "WsrNet_Basic",  # the same cell under another training recipe
    "cna_r": "WsrNet_Basic",
    "cna_m": "WsrNet_M",
    "cna_m_1": "WsrNet_M_1",
    "cna_n": "WsrNet_N",
    "cna_r_minus": "WsrNet_R_minus",
    "ADVRUSH": "AdvRush",
}

_BY_PLAIN_NAME = {name.lower(): name for name in PUBLISHED} | {a.lower(): name for a, name in ALIASES.items()}


def names() -> list[str]:
    """The published names, without aliases."""
    return list(PUBLISHED)


def load(spec: str | Path) -> Genotype:
    """The genotype called ``spec``.

    Args:
        spec: a published name or alias (upper and lower case, "-" and "_" are the same), or else the path of
            a genotype's JSON file or of a run directory that holds ``genotype.json``.
    Raises:
        InputError: there is no such name or file, or the file is not a genotype.
    """
    spec = os.fspath(spec)
    if published := _BY_PLAIN_NAME.get(spec.lower().replace("-", "_")):
        return PUBLISHED[published]
    if os.path.isdir(spec):
        file = Path(spec, "genotype.json")
        if not file.exists():
            raise InputError(f"the directory {spec} holds no genotype.json; expected that of a run")
        return Genotype.load(file)
    if os.path.exists(spec):
        return Genotype.load(spec)
    if "/" in spec or os.sep in spec or spec.endswith(".json"):
        raise InputError(f"the genotype file {spec} does not exist; expected a JSON file or a run directory")
    raise InputError(_unknown_name(spec))


def _unknown_name(spec: str) -> str:
    near = difflib.get_close_matches(spec.lower().replace("-", "_"), _BY_PLAIN_NAME, n=3)
    closest = list(dict.fromkeys(_BY_PLAIN_NAME[name] for name in near))
    hint = f"; did you mean {' or '.join(closest)}?" if closest else ";"
    return (f"unknown architecture {spec!r}{hint} known names: {', '.join(PUBLISHED)}; "
            f"aliases: {', '.join(ALIASES)}; or give the path of a genotype JSON or of a run directory")
