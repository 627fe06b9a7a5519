"""Compiled kernels of 0-dimensional persistence: call :mod:`.cpu` on the CPU, :mod:`.triton_kernels` on a GPU."""
