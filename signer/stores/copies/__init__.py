"""Copies of a list in memory, for validations, and the feed that other machines copy a list from.

The words, each for one thing:

- **Index**: the ids of everything in a list. It can say that a token is not in the list, and nothing else.
- **FullCopy**: all rows of a list. It answers as the list would. NO_COPY stands for a missing one.
- **Loader**: fills an index or a full copy from snapshots (chunks of rows first, then changes), step by step.
- **Refresher**: the thread that keeps a full copy fresh; **Progress** is what one of its steps achieved.
- **CopyView**: the View of an engine on another machine, which answers from a full copy.
- **RemoteStore**: a Store that has nothing but a full copy, made from the **feed** of another service, which
  sends the list in **parts**.
- **fresh**: less than a bound (REVOCATION_STALENESS_SECONDS) has passed since the copy was equal to the list.
"""
