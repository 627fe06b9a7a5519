"""Compiled kernels.

Spanning trees, gradients and the loss: :mod:`.cpu` on the CPU, :mod:`.triton_kernels` on a GPU. Lengths, orders of
edges and reduction of coboundary matrices, on the CPU: :mod:`.lengths`, :mod:`.filtrations`, :mod:`.edges`,
:mod:`.cohomology`.
"""
