"""
Two methods compared
====================

The benchmark: OC-SVM on pixels and Deep-SVDD under the same protocol, on four classes of scikit-learn's
digits, one draw of 120 images each. The command keeps each cell, one method on one draw of one class, as a row; the
picture is made of the rows. The quick profile trains for seconds: this shows how to compare, not which method is
better.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

METHODS = ["sklearn:OneClassSVM", "deep-svdd"]

# %%
# In a shell: ``python -m bench.table1 --methods sklearn:OneClassSVM deep-svdd --classes 1 4 7 8 --runs 1``.

with tempfile.TemporaryDirectory() as out:
    options = ["--methods", *METHODS, "--classes", "1", "4", "7", "8", "--runs", "1", "--workers", "1", "--out", out]
    command = [sys.executable, "-m", "bench.table1", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    cells = pd.read_csv(Path(out) / "cells.csv")

print(done.stdout.partition("\n\n")[0])  # the table; what follows it says how it was made

# %%
# A point per class. Both methods were built from the same 120 images, so that they are compared in pairs: above the
# diagonal Deep-SVDD has the higher AUC.

pairs = cells.pivot(index="class_name", columns="method", values="auc")
figure, axes = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
axes.scatter(pairs[METHODS[0]], pairs[METHODS[1]], color="#0072b2", zorder=3)
for digit, x, y in pairs[METHODS].itertuples():
    axes.annotate(f"{digit}", (x, y), xytext=(6, 4), textcoords="offset points")
low = pairs.min().min() - 0.01
axes.plot([low, 1], [low, 1], color="black", linewidth=0.8, linestyle="--")
axes.set(xlabel=f"AUC of {METHODS[0]}", ylabel=f"AUC of {METHODS[1]}", xlim=(low, 1.005), ylim=(low, 1.005))
axes.spines[["top", "right"]].set_visible(False)
plt.show()
