"""Small models and real data sets that the bundled configurations select."""
