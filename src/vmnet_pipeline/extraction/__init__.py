"""Extract features: plan what is missing, run it in this process, in worker processes or on a Dask cluster."""
