"""One module for each outside thing: Kafka clients, object store, ClickHouse, onnxruntime, FAISS, signing keys."""
