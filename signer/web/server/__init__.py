"""The processes of the service: uvicorn, its workers and their supervisor."""
