"""Compiled kernels of 0-dimensional persistence: :mod:`.cpu` is the way in on the CPU, :mod:`.triton_kernels` on GPUs."""
