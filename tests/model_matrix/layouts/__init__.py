"""Folders as their authors publish them, with tiny random weights: the second table of `make coverage`.

Each layout names a model of the hub and writes a folder with its files and keys. It is exported without options, and
the artifact's answers are compared with those of the authors' library for the same folder.
"""
