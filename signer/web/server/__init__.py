"""The processes of the service, under uvicorn."""
