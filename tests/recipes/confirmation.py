"""One-time confirmation: a payment is made once, exactly as it was shown.

The token is bound to everything that was shown: user, payee and amount. When the payment is confirmed, it is
read from your own table and not from the form. If it is no longer what was shown, the token is refused. Of
any number of clicks `consume` accepts one, before the money moves.

It avoids confirming "payment 7" while somebody changes payment 7, paying twice after a double click, and a
token for a small payment that is accepted for a large one.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from signer import Signer, TokenError

PURPOSE = "confirm-payment"


@dataclass
class Payment:
    """A row of your own table of payments."""

    id: str
    user: str
    payee: str
    cents: int


def ask(signer: Signer, payment: Payment, send: Callable[[str], None]) -> None:
    """Send what is to be confirmed, and a link that confirms it within five minutes."""
    token = signer.issue(purpose=PURPOSE, sub=payment.user, ttl=5 * 60, bind=_shown(payment))
    send(
        f"Pay {payment.cents / 100:.2f} to {payment.payee}?"
        f" https://www.example.org/confirm?payment={payment.id}&token={token}"
    )


def confirm(signer: Signer, payment: Payment, token: str, pay: Callable[[Payment], None]) -> bool:
    """Make the payment with the id in the link, for the user who is logged in; return whether it was made. If
    `pay` fails, the token is used up: ask again."""
    try:
        signer.consume(token, purpose=PURPOSE, bind=_shown(payment))
    except TokenError:
        return False
    pay(payment)
    return True


def _shown(payment: Payment) -> str:
    # As JSON, because with a space between them "a b" and "c" would be the same as "a" and "b c".
    return json.dumps(asdict(payment), sort_keys=True)
