"""Networks, losses and density maps. torch only: no files, no storage, no Prefect."""
