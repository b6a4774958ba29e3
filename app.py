"""The service: `python app.py`, or `uvicorn app:app`."""

from signer.web import load, serve

if __name__ == "__main__":
    serve()
elif __name__ != "__mp_main__":  # not again in the workers of the first
    app = load()
