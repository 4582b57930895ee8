"""The service: search over HTTP and the page that uses it. Knows the library, not kedro."""
