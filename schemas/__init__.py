"""The contract: what crosses Kafka, as bytes and as frozen values; pure, and importing nothing of the other rooms."""
