"""The Helm chart's values: their types, from which values.schema.json is made."""
