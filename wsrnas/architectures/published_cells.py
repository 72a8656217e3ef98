"""Published cells, one entry each: name, family, source, the papers' figures, published sizes and the cell itself."""

from wsrnas.architectures.entry import Entry, in_rnas, in_wsr, in_wsr_imagenet

# Repository, file and commit; the symbol of a cell follows in its entry.
WSR = "zhicheng2T0/Wsr-NAS retrain/genotypes.py@7736f5da"
DARTS = "quark0/darts cnn/genotypes.py@f276dd34"
RNAS = "hye999/RNAS genotypes.py@f85107e6"
TRNAS = "fly2tortoise/TRNAS 2_Darts_space/eval/genotypes.py@66b668f3"
NAS_OOD = "HaoyueBaiZJU/NAS-OoD tools/genotypes.py@13a63ad9"
SNAS = "SNAS-Series/SNAS-Series SNAS/genotypes.py@9a43adbd"
PC_DARTS = "yuhuixu1993/PC-DARTS genotypes.py@b74702f8"
ADVRUSH = "nutellamok/advrush advrush/genotypes.py@a15b26a4"
LRNAS = "fyqsama/LRNAS genotypes.py@aa13ec24"

WIDTH_UNKNOWN = "the width that the paper retrained is not published, this one comes near its figure"

PUBLISHED_CELLS = (
    Entry("WsrNet_Basic", "Wsr-NAS", f"{WSR} cna_r", reported=(in_wsr("4.5"), in_wsr_imagenet("13.1")), size=(45, 20),
          imagenet_size=(74, 20), note="WsrNet-Robust is the same cell under another recipe",
          aliases=("WsrNet_Robust", "cna_r"), cell=dict(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("avg_pool_3x3", 1), ("sep_conv_5x5", 0)],
        reduce=[("sep_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("avg_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("WsrNet_Plus", "Wsr-NAS", f"{WSR} WsrNet_Plus", reported=(in_wsr("4.7"),), size=(46, 20),
          note="the graph of WsrNet_M_1: two edges of a node are listed in the other order", cell=dict(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_3x3", 3), ("dil_conv_5x5", 2), ("sep_conv_5x5", 0), ("avg_pool_3x3", 1)],
        reduce=[("sep_conv_3x3", 1), ("dil_conv_3x3", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("WsrNet_M", "Wsr-NAS", f"{WSR} cna_m", size=(45, 20), aliases=("cna_m",), cell=dict(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("avg_pool_3x3", 1), ("sep_conv_3x3", 0)],
        reduce=[("sep_conv_3x3", 1), ("dil_conv_5x5", 0), ("max_pool_3x3", 1), ("avg_pool_3x3", 2),
                ("dil_conv_5x5", 2), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("avg_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("WsrNet_M_1", "Wsr-NAS", f"{WSR} cna_m_1", size=(45, 20), aliases=("cna_m_1",), cell=dict(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("sep_conv_5x5", 0), ("avg_pool_3x3", 1)],
        reduce=[("sep_conv_3x3", 1), ("dil_conv_3x3", 0), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("WsrNet_N", "Wsr-NAS", f"{WSR} cna_n", size=(50, 20), aliases=("cna_n",), cell=dict(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("max_pool_3x3", 0), ("skip_connect", 4)],
        reduce=[("dil_conv_5x5", 0), ("sep_conv_3x3", 1), ("max_pool_3x3", 1), ("avg_pool_3x3", 2),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("max_pool_3x3", 2), ("dil_conv_3x3", 0)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("WsrNet_R_minus", "Wsr-NAS", "zhicheng2T0/Wsr-NAS test_AN_estimator/genotypes.py@7736f5da cna_r_minus",
          size=(42, 20), aliases=("cna_r_minus",), cell=dict(
        normal=[("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_5x5", 0), ("avg_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("dil_conv_3x3", 3), ("sep_conv_5x5", 0), ("sep_conv_5x5", 3)],
        reduce=[("dil_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 2), ("max_pool_3x3", 1),
                ("dil_conv_5x5", 2), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("RACL", "robust NAS", f"{ADVRUSH} RACL",
          reported=(in_wsr("3.6"), in_wsr_imagenet("12.0"), in_rnas("3.6", "1, 3, 4")), imagenet_size=(64, 20),
          note="a copy that five repositories share; there is no official one", cell=dict(
        normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("skip_connect", 1),
                ("sep_conv_3x3", 0), ("skip_connect", 3), ("sep_conv_3x3", 3), ("skip_connect", 4)],
        reduce=[("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1),
                ("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2), ("dil_conv_3x3", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("AdvRush", "robust NAS", f"{ADVRUSH} ADVRUSH", reported=(in_wsr("4.2"), in_wsr_imagenet("12.2")),
          imagenet_size=(60, 20), cell=dict(
        normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("sep_conv_3x3", 1),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1)],
        reduce=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2),
                ("skip_connect", 0), ("avg_pool_3x3", 1), ("skip_connect", 0), ("skip_connect", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("RNAS_repo_H", "RNAS", f"{RNAS} RNAS_H", reported=(in_rnas("3.5 as RNAS-L", "1-4"),),
          note="the repository's H and L have each other's parameter figures of the paper", cell=dict(
        normal=[("dil_conv_5x5", 0), ("dil_conv_5x5", 1), ("dil_conv_5x5", 0), ("dil_conv_3x3", 1),
                ("dil_conv_5x5", 3), ("sep_conv_5x5", 0), ("dil_conv_5x5", 0), ("dil_conv_3x3", 2)],
        reduce=[("avg_pool_3x3", 1), ("dil_conv_5x5", 0), ("dil_conv_5x5", 2), ("sep_conv_5x5", 0),
                ("sep_conv_3x3", 3), ("skip_connect", 0), ("sep_conv_5x5", 0), ("sep_conv_5x5", 4)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("RNAS_repo_L", "RNAS", f"{RNAS} RNAS_L", reported=(in_rnas("3.2 as RNAS-H", "1, 3, 4"),),
          note="as RNAS_repo_H", cell=dict(
        normal=[("dil_conv_5x5", 0), ("dil_conv_5x5", 1), ("skip_connect", 2), ("dil_conv_5x5", 0),
                ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("skip_connect", 2)],
        reduce=[("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("sep_conv_5x5", 2), ("sep_conv_3x3", 1),
                ("dil_conv_3x3", 3), ("dil_conv_5x5", 2), ("sep_conv_5x5", 3), ("sep_conv_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("DARTS_V1", "NAS", f"{DARTS} DARTS_V1", reported=(in_wsr("3.2"), in_rnas("3.3", "1-4")),
          note="the first-order cell, which RNAS' repository calls DARTS", cell=dict(
        normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1),
                ("skip_connect", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 2)],
        reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0),
                ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("avg_pool_3x3", 0)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("DARTS_V2", "NAS", f"{DARTS} DARTS_V2",
          note="the second-order cell, which most papers call DARTS", cell=dict(
        normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
                ("sep_conv_3x3", 1), ("skip_connect", 0), ("skip_connect", 0), ("dil_conv_3x3", 2)],
        reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 1),
                ("max_pool_3x3", 0), ("skip_connect", 2), ("skip_connect", 2), ("max_pool_3x3", 1)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("PC_DARTS", "NAS", f"{PC_DARTS} PC_DARTS_cifar", reported=(in_rnas("3.6", "1-4"),), cell=dict(
        normal=[("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 0), ("dil_conv_3x3", 1),
                ("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 1)],
        reduce=[("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 2),
                ("sep_conv_3x3", 0), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_3x3", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("PC_DARTS_ImageNet", "NAS", f"{PC_DARTS} PC_DARTS_image", note="searched on ImageNet", cell=dict(
        normal=[("skip_connect", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 0), ("skip_connect", 1),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4)],
        reduce=[("sep_conv_3x3", 0), ("skip_connect", 1), ("dil_conv_5x5", 2), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 2), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("sep_conv_3x3", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("P_DARTS", "NAS", "chenxin061/pdarts genotypes.py@b880e873 PDARTS",
          reported=(in_rnas("3.4", "1"),), cell=dict(
        normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 1),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 3), ("sep_conv_3x3", 0), ("dil_conv_5x5", 4)],
        reduce=[("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 2),
                ("max_pool_3x3", 0), ("dil_conv_3x3", 1), ("dil_conv_3x3", 1), ("dil_conv_5x5", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("SNAS_mild", "NAS", f"{SNAS} SNAS_mild", reported=(in_rnas("2.7", "1-4"),), cell=dict(
        normal=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 1),
                ("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 0), ("sep_conv_3x3", 1)],
        reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("max_pool_3x3", 1), ("skip_connect", 2),
                ("max_pool_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0), ("dil_conv_5x5", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("SNAS_moderate", "NAS", f"{SNAS} SNAS_moderate", cell=dict(
        normal=[("dil_conv_5x5", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("skip_connect", 1),
                ("skip_connect", 0), ("skip_connect", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 1)],
        reduce=[("max_pool_3x3", 0), ("max_pool_3x3", 1), ("sep_conv_5x5", 0), ("dil_conv_5x5", 1),
                ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("NASNet_A", "NAS", f"{DARTS} NASNet", reported=(in_wsr("3.3"), in_rnas("4.3", "1-4")),
          note="RNAS' 4.3 M counts the auxiliary head: 4.289 M", cell=dict(
        normal=[("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 0), ("sep_conv_3x3", 0),
                ("avg_pool_3x3", 1), ("skip_connect", 0), ("avg_pool_3x3", 0), ("avg_pool_3x3", 0),
                ("sep_conv_3x3", 1), ("skip_connect", 1)],
        reduce=[("sep_conv_5x5", 1), ("sep_conv_7x7", 0), ("max_pool_3x3", 1), ("sep_conv_7x7", 0),
                ("avg_pool_3x3", 1), ("sep_conv_5x5", 0), ("skip_connect", 3), ("avg_pool_3x3", 2),
                ("sep_conv_3x3", 2), ("max_pool_3x3", 1)],
        normal_concat=[2, 3, 4, 5, 6], reduce_concat=[4, 5, 6])),
    Entry("AmoebaNet_A", "NAS", f"{DARTS} AmoebaNet", reported=(in_wsr("3.2"), in_rnas("3.2", "1-4")),
          cell=dict(
        normal=[("avg_pool_3x3", 0), ("max_pool_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 2),
                ("sep_conv_3x3", 0), ("avg_pool_3x3", 3), ("sep_conv_3x3", 1), ("skip_connect", 1),
                ("skip_connect", 0), ("avg_pool_3x3", 1)],
        reduce=[("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("max_pool_3x3", 0), ("sep_conv_7x7", 2),
                ("sep_conv_7x7", 0), ("avg_pool_3x3", 1), ("max_pool_3x3", 0), ("max_pool_3x3", 1),
                ("conv_7x1_1x7", 0), ("sep_conv_3x3", 5)],
        normal_concat=[4, 5, 6], reduce_concat=[3, 4, 6])),
    Entry("PNAS", "NAS", f"{RNAS} PNAS", reported=(in_rnas("4.5", "1-4"),), cell=dict(
        normal=[("sep_conv_5x5", 0), ("max_pool_3x3", 0), ("sep_conv_7x7", 1), ("max_pool_3x3", 1),
                ("sep_conv_5x5", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 0), ("skip_connect", 1)],
        reduce=[("sep_conv_5x5", 0), ("max_pool_3x3", 0), ("sep_conv_7x7", 1), ("max_pool_3x3", 1),
                ("sep_conv_5x5", 1), ("sep_conv_3x3", 1), ("sep_conv_3x3", 4), ("max_pool_3x3", 1),
                ("sep_conv_3x3", 0), ("skip_connect", 1)],
        normal_concat=[2, 3, 4, 5, 6], reduce_concat=[2, 3, 4, 5, 6])),
    Entry("E2RNAS", "robust NAS",
          "yuezhixiong/NAS-Benchmark DARTS/genotypes.py@a288b6c2 "
          "woOodAug_LL_acc1_ood1_UL_adv_nop_ood_flp_mgda_abs40_gnl2",
          reported=(in_wsr("4.0"),), size=(46, 20), note=WIDTH_UNKNOWN,
          cell=dict(
        normal=[("avg_pool_3x3", 0), ("skip_connect", 1), ("avg_pool_3x3", 0), ("sep_conv_3x3", 2),
                ("sep_conv_5x5", 3), ("avg_pool_3x3", 0), ("sep_conv_5x5", 2), ("avg_pool_3x3", 0)],
        reduce=[("avg_pool_3x3", 0), ("avg_pool_3x3", 1), ("avg_pool_3x3", 1), ("avg_pool_3x3", 0),
                ("avg_pool_3x3", 0), ("skip_connect", 3), ("skip_connect", 3), ("avg_pool_3x3", 0)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("NAS_OoD_twostage", "robust NAS", f"{NAS_OOD} NASOOD_twostage", reported=(in_wsr("4.4"),), size=(42, 20),
          note=f"which of the three cells is not published; {WIDTH_UNKNOWN}", cell=dict(
        normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("sep_conv_5x5", 0), ("dil_conv_3x3", 2),
                ("dil_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 2), ("skip_connect", 0)],
        reduce=[("avg_pool_3x3", 0), ("sep_conv_5x5", 1), ("dil_conv_5x5", 2), ("max_pool_3x3", 1),
                ("dil_conv_5x5", 3), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4), ("sep_conv_5x5", 1)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("NAS_OoD_onestage", "robust NAS", f"{NAS_OOD} NASOOD_onestage", reported=(in_wsr("4.4"),), size=(41, 20),
          note="as NAS_OoD_twostage", cell=dict(
        normal=[("skip_connect", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2),
                ("avg_pool_3x3", 3), ("sep_conv_3x3", 1), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2)],
        reduce=[("avg_pool_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 0), ("max_pool_3x3", 1),
                ("sep_conv_5x5", 1), ("avg_pool_3x3", 0), ("max_pool_3x3", 0), ("dil_conv_5x5", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("NAS_OoD_ImageNet", "robust NAS", f"{NAS_OOD} NASOOD_ImageNet", reported=(in_wsr("4.4"),), size=(38, 20),
          note="as NAS_OoD_twostage", cell=dict(
        normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 2),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 4)],
        reduce=[("skip_connect", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 0),
                ("sep_conv_3x3", 0), ("skip_connect", 2), ("sep_conv_3x3", 2), ("skip_connect", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("PVLL", "NAS", "Linwei-Tao/Focal-Loss-Search genotypes.py@214368c0 PVLL_NAS",
          reported=(in_wsr("3.5"),), cell=dict(
        normal=[("sep_conv_5x5", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 1), ("sep_conv_5x5", 0),
                ("avg_pool_3x3", 3), ("dil_conv_5x5", 1), ("sep_conv_3x3", 1), ("max_pool_3x3", 0)],
        reduce=[("sep_conv_5x5", 1), ("max_pool_3x3", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 2),
                ("dil_conv_5x5", 2), ("sep_conv_5x5", 0), ("dil_conv_3x3", 1), ("skip_connect", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("LRNAS_cifar10", "robust NAS", f"{LRNAS} search_cifar10", cell=dict(
        normal=[("max_pool_3x3", 1), ("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0),
                ("sep_conv_3x3", 2), ("avg_pool_3x3", 1), ("max_pool_3x3", 3), ("max_pool_3x3", 0)],
        reduce=[("none", 0), ("none", 1), ("sep_conv_5x5", 2), ("max_pool_3x3", 0),
                ("avg_pool_3x3", 2), ("skip_connect", 1), ("max_pool_3x3", 3), ("skip_connect", 4)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("LRNAS_cifar100", "robust NAS", f"{LRNAS} search_cifar100", cell=dict(
        normal=[("avg_pool_3x3", 0), ("none", 1), ("skip_connect", 0), ("skip_connect", 2),
                ("sep_conv_5x5", 3), ("skip_connect", 2), ("max_pool_3x3", 4), ("sep_conv_5x5", 1)],
        reduce=[("none", 0), ("skip_connect", 1), ("none", 0), ("none", 1),
                ("max_pool_3x3", 1), ("none", 0), ("skip_connect", 4), ("sep_conv_3x3", 0)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("TRNAS_c10", "robust NAS", f"{TRNAS} TRNAS_c10", cell=dict(
        normal=[("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 1), ("skip_connect", 0),
                ("avg_pool_3x3", 1), ("sep_conv_5x5", 3), ("skip_connect", 1), ("sep_conv_5x5", 4)],
        reduce=[("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1),
                ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_5x5", 1), ("sep_conv_5x5", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("RNTK", "robust NAS", f"{TRNAS} RNTK", cell=dict(
        normal=[("sep_conv_3x3", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 0), ("dil_conv_5x5", 1),
                ("skip_connect", 2), ("sep_conv_3x3", 3), ("dil_conv_3x3", 2), ("skip_connect", 4)],
        reduce=[("avg_pool_3x3", 0), ("sep_conv_3x3", 1), ("dil_conv_5x5", 2), ("sep_conv_3x3", 1),
                ("avg_pool_3x3", 0), ("skip_connect", 3), ("max_pool_3x3", 4), ("skip_connect", 1)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("REP_PGD", "robust NAS", f"{TRNAS} REP_PGD", cell=dict(
        normal=[("skip_connect", 1), ("dil_conv_3x3", 0), ("dil_conv_3x3", 1), ("sep_conv_3x3", 0),
                ("sep_conv_3x3", 3), ("dil_conv_5x5", 1), ("dil_conv_3x3", 3), ("sep_conv_3x3", 4)],
        reduce=[("sep_conv_3x3", 1), ("sep_conv_5x5", 0), ("sep_conv_5x5", 1), ("sep_conv_3x3", 2),
                ("sep_conv_3x3", 2), ("sep_conv_5x5", 1), ("max_pool_3x3", 4), ("max_pool_3x3", 3)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("A3D_DE_AAA", "robust NAS", "Jialiang14/AAAD retrain/genotypes.py@f67c8fc9 DE_NAS_AAA", cell=dict(
        normal=[("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_5x5", 2), ("sep_conv_3x3", 1),
                ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 1)],
        reduce=[("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2),
                ("skip_connect", 1), ("avg_pool_3x3", 1), ("dil_conv_3x3", 0), ("skip_connect", 2)],
        normal_concat=[2, 3, 4, 5], reduce_concat=[2, 3, 4, 5])),
    Entry("CRoZe_cifar10", "robust NAS", f"{TRNAS} CROZE", note="all 14 edges of a cell", cell=dict(
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
        normal_concat=[4, 5, 3, 4], reduce_concat=[3, 2, 5, 5])),
)
