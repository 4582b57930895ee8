"""The Kedro pipelines. Each folder has thin nodes, which call the library, and a pipeline that reads like a table."""
