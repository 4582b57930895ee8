"""What happens around every Kedro run: checks, configuration, error messages, results."""
