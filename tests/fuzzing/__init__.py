"""The fuzzer's parts: what it changes (`pickled`, `sources`, `mutations`) and how it tries a file (`trial`)."""
