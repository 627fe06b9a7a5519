"""What every experiment runs on: the protocol, cells, their execution, and the store of results."""
