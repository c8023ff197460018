"""Real services that tests run beside the product."""
