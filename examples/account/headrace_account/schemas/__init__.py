"""The Avro schemas of ``bank.account``, one file a record type and version."""
