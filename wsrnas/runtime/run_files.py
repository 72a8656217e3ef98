"""Names of the files and folders inside a run directory.

Names of figures, and names with a label or number in them, stand where the files are written.
"""

CONFIG = "config.json"  # the resolved configuration
INPUTS = "inputs.json"  # further values that the run depends on: fingerprint of the data, genotype
ENVIRONMENT = "env.json"  # command, versions and hardware of every start
LOG = "log.txt"
METRICS = "metrics.jsonl"  # one row of numbers for each step
TENSORBOARD = "tb"  # folder
TRACKING = "tracking.json"  # the run in an experiment tracker
CHECKPOINT = "checkpoint.pt"  # the newest state; a run resumes from it
BEST = "best.pt"  # the state that held-out images select
GOOD = "good.pt"  # the newest state before catastrophic overfitting
WEIGHTS = {"best": BEST, "last": CHECKPOINT}  # the file of each choice of --weights
GENOTYPE = "genotype.json"  # the cell that a search has found
GENOTYPES = "genotypes"  # folder: the cell after each epoch of a search, or the cells of a race
INITIAL_GENOTYPE = f"{GENOTYPES}/initial.json"
SPACE = "space.json"  # the search space: cells, edges, operations
SPLIT = "split.json"  # the two parts of the training set that a search uses
BOUND = "bound.json"  # RNAS' bound on the vulnerability
VULNERABILITY = "vulnerability.json"
VULNERABILITY_TABLE = "vulnerability.md"
RESULT = "result.json"  # an AN-Estimator's result on the test noises
STUDY_SUMMARY = "summary.json"  # the results of all AN-Estimators of a study
STUDY_REPORT = "report.md"
NOISE_SAMPLES = "noise_samples.npz"  # noises of PGD and of the estimator at the newest step of a search
RACE = "race.json"  # the results of a race
RACE_TABLE = "race.md"
ENTRANTS = "entrants.json"  # the entrants and the number of trainings of each
COSTS = "costs.json"  # memory and latency of each entrant
STRATEGIES = "results.json"  # the results of strategies on a table
SEARCHES = "searches"  # folder: one JSON file for each strategy and seed
RANKING = "ranking.json"  # how well a supernet ranks
RANKING_TABLE = "ranking.md"
ROWS = "rows"  # folder: measured architectures of a ranking, one line of JSON each
EVALUATIONS = "eval"  # folder: one JSON file for each evaluation
OFFICIAL = "official.pt"  # among the chunks of an evaluation: the state of the published way
FIGURES = "figures"  # folder
REPORT = "report.html"
CLAIMS = "claims"  # folder: locks of the processes that share a work
LOCK = ".lock"  # held by the process that writes the folder
FINISHED = "FINISHED"  # present when the run is complete
PROBE = ".writable"  # written and removed, to see whether the folder can be written
BEFORE_ALL = (LOCK, PROBE, f"{CONFIG}.tmp", CLAIMS)  # what a kill may leave before there is a configuration


def genotype_after(epoch: int) -> str:
    """Return the file name of the cell that a search holds after an epoch, whose number counts from 0."""
    return f"{GENOTYPES}/epoch_{epoch:03d}.json"
