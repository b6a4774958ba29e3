"""The service: `python app.py`, or `uvicorn app:app`."""

from signer.web import load, serve

if __name__ == "__main__":
    serve()
else:
    app = load()
