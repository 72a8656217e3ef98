# %% [markdown]
# # First steps
#
# A published cell, an attack on it, its curve, a short training on handwritten digits, and a file that
# others can load. It takes less than three minutes on two CPU cores.
#
# This page exists twice: `examples/first_steps.py` runs as a program, and `examples/first_steps.ipynb`
# is the same with its output. [docs/API.md](../docs/API.md) describes every function.

# %%
import tempfile
from pathlib import Path

import torch

import wsrnas

torch.manual_seed(0)
FOLDER = Path(tempfile.mkdtemp(prefix="first_steps_"))  # everything below is written here

# %% [markdown]
# ## A published cell
#
# `model_names()` lists all architectures. Here is the cell of WsrNet-Basic, as the paper found it.

# %%
cell = wsrnas.load_cell("WsrNet_Basic")
print(cell.normal[:4])
print(f"{len(wsrnas.model_names())} architectures:", ", ".join(wsrnas.model_names()[:6]), "...")
drawing = wsrnas.draw_cell(cell, FOLDER / "cell")

# %% [markdown]
# ## Images
#
# 1,797 handwritten digits come with the code. Images are in [0, 1] everywhere, and normalisation, where
# there is any, is the network's first layer.

# %%
data = wsrnas.load_dataset("digits")
print(len(data.train), "training images,", len(data.test), "test images,", data.num_classes, "classes")

# %% [markdown]
# ## A network, trained briefly
#
# The published network has 45 channels and 20 cells; 6 channels and 4 cells suffice for digits. `train`
# is adversarial training with PGD at strength 0.1: no pixel changes by more than 0.1.

# %%
model = wsrnas.build_model("WsrNet_Basic", num_classes=10, init_channels=6, layers=4)
print(f"{wsrnas.count_parameters(model):,} parameters")
rows = wsrnas.train(model, data, epochs=3, epsilon=0.1, steps=3, batch_size=32)

# %% [markdown]
# The same network, trained without an attack, for comparison.

# %%
torch.manual_seed(0)
standard = wsrnas.build_model("WsrNet_Basic", num_classes=10, init_channels=6, layers=4)
standard_rows = wsrnas.train(standard, data, epochs=2, loss="standard", batch_size=32)

# %% [markdown]
# ## Attack it
#
# `pgd` returns images that stay within `epsilon` of the given ones and in [0, 1].

# %%
images, labels = next(wsrnas.BatchLoader(data.test, 64, seed=0, purpose="look").batches())
for name, network in (("adversarial training", model), ("standard training", standard)):
    adversarial = wsrnas.pgd(network, images, labels, epsilon=0.1, steps=20)
    with torch.no_grad(), wsrnas.attack_mode(network):
        clean, robust = ((network(x).argmax(1) == labels).float().mean().item() for x in (images, adversarial))
    print(f"{name}: {clean:.0%} without noise, {robust:.0%} under PGD-20; "
          f"largest change of a pixel {float((adversarial - images).abs().max()):.3f}")

# %% [markdown]
# ## Measure it, with intervals
#
# 64 images say little. `evaluate` gives 95 % intervals, and checks that the attack was not fooled.

# %%
results = [wsrnas.evaluate(network, data, strengths=(0.03, 0.1, 0.17, 0.25), images=100, name=name)
           for name, network in (("adversarial", model), ("standard", standard))]
print(wsrnas.result_table(*results))

# %% [markdown]
# ## The curve

# %%
wsrnas.draw_curve(*results, path=FOLDER / "curve.svg")

# %% [markdown]
# ## Your own images
#
# Arrays, tensors or any torch `Dataset` of (image, class) take the place of `data`. Without test images,
# a fifth of each class is kept for the test.

# %%
pairs = torch.utils.data.TensorDataset(data.train.images.float() / 255, data.train.labels)
own = wsrnas.own_data(pairs, name="my digits")
print(own.name, len(own.train), "training images,", len(own.test), "test images")

# %% [markdown]
# ## Keep it
#
# `open_model` reads the file again. `wsrnas evaluate --model FILE` measures it with every attack, and
# `wsrnas export --model FILE` packs it for users without this project; `run` starts a command from Python.

# %%
file = wsrnas.save_model(model, FOLDER / "digits.pt", "WsrNet_Basic", data, init_channels=6, layers=4, epochs=3)
again = wsrnas.open_model(str(file)).model
with torch.no_grad():
    print("same logits:", torch.equal(again(images), model.eval()(images)))

# %%
wsrnas.run("export", "--model", str(file), "--out", str(FOLDER / "package"), "--name", "my_digits")
print(sorted(path.name for path in (FOLDER / "package").iterdir()))
