"""Telephone numbers and other caller identities in the form that PASSporTs carry.

RFC 8224 §8.3 canonicalises telephone numbers, §8.5 URIs. "The same routine must run" where
a call is signed and where it is verified, so both services use `canonical_party` and nothing
else. What a country dials in front of its numbers is data (`DialPlan`), not code.

The steps for a dialled number, in order; the first that applies ends it:

1. ``+`` in front: the digits after it are E.164 already.
2. A number of the plan's service numbers (911, 112, 211 …) stays as dialled.
3. A tel: ``phone-context=+…`` is put in front.
4. ``*`` or ``#`` in it: stays as dialled.
5. The international prefix (011, 00 …) is stripped.
6. The national prefix (1, 0 …) is stripped where a national number remains, and the country
   code put in front.
7. Country code in front and a national number behind it: E.164 without its ``+``.
8. A national number by its length: the country code is put in front.
9. Anything else "cannot be determined" (§8.3) and stays as dialled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from shaken_plugin.core.sip import Uri
from shaken_plugin.errors import NumberError, SipSyntaxError

_TN = re.compile(r"[0-9*#]{1,32}")
_E164 = re.compile(r"[0-9]{1,15}")
# RFC 3966 §3 visual separators, and the space that RFC 8224 §8.3 names.
_SEPARATORS = str.maketrans("", "", "-.() ")


@dataclass(frozen=True, slots=True, init=False)
class TelephoneNumber:
    """A ``tn`` claim: ``1*("#" / "*" / DIGIT)``, no leading ``+`` (RFC 8224 §8.3)."""

    digits: str
    is_e164: bool = field(default=True, compare=False)
    """Whether the country is known; not so for service numbers and what stays as dialled."""

    def __init__(self, digits: str, *, is_e164: bool = True) -> None:
        # By hand: each call makes two, and what is made for a frozen class sets each field at three times the cost.
        if _TN.fullmatch(digits) is None:
            raise NumberError("a telephone number holds digits, * and # only, 1 to 32 of them")
        _SET_DIGITS(self, digits)
        _SET_E164(self, is_e164)

    def __str__(self) -> str:
        return self.digits

    @property
    def masked(self) -> str:
        """The number for logs: the line digits hidden, ``1215*****12``."""
        return masked(self.digits)


_SET_DIGITS: Final = vars(TelephoneNumber)["digits"].__set__
_SET_E164: Final = vars(TelephoneNumber)["is_e164"].__set__


def masked(digits: str) -> str:
    """`TelephoneNumber.masked` of the number with these digits."""
    length = len(digits)
    if length > 6:
        return f"{digits[:4]}{'*' * (length - 6)}{digits[-2:]}"
    return digits if length <= 4 else f"{digits[0]}{'*' * (length - 3)}{digits[-2:]}"


@dataclass(frozen=True, slots=True)
class UriIdentity:
    """A ``uri`` claim in the canonical form of RFC 8224 §8.5."""

    uri: str

    def __str__(self) -> str:
        return self.uri

    @property
    def masked(self) -> str:
        """The URI for logs: the user part hidden, and all of it where there is none to tell apart."""
        scheme, _, rest = self.uri.partition(":")
        if self.uri.startswith("urn:service:"):
            return self.uri
        _, at, host = rest.rpartition("@")
        return f"{scheme}:***{at}{host if at else ''}"


Party = TelephoneNumber | UriIdentity
"""Who calls or is called, as ``orig`` and ``dest`` claims name them (RFC 8225 §5.2.1)."""


@dataclass(frozen=True, slots=True, eq=False)
class DialPlan:
    """How numbers are dialled in one country. A plan equals itself alone: what was read by it is remembered with it.

    ``international_prefix`` and ``national_prefix`` match at the start of a dialled number
    (None where the country has none). ``national_lengths`` are the digit counts of a national
    (significant) number. ``numeric_users`` is the "local policy" of RFC 8224 §8.3 (a): a sip:
    user that reads as a number is one even without ``user=phone``.
    """

    country_code: str
    international_prefix: re.Pattern[str] | None
    national_prefix: re.Pattern[str] | None
    national_lengths: frozenset[int]
    service_numbers: re.Pattern[str]
    emergency_numbers: re.Pattern[str]
    numeric_users: bool = True

    def canonical(self, dialled: str, context: str | None = None) -> TelephoneNumber:
        """The canonical number for dialled digits (steps in the module's docstring).

        Args:
            dialled: digits, ``+``, ``*``, ``#`` and visual separators.
            context: the tel: URI's ``phone-context``, where it has one.

        Raises:
            NumberError: any other character, or no digit at all.
        """
        number = dialled.translate(_SEPARATORS)
        if number.startswith("+"):
            if _E164.fullmatch(number[1:]) is None:
                raise NumberError("+ must be followed by 1 to 15 digits")
            return TelephoneNumber(number[1:])
        if self.service_numbers.fullmatch(number):
            return TelephoneNumber(number, is_e164=False)
        if number and context is not None and context.startswith("+"):
            return self.canonical(context + number)
        e164 = self._e164(number) if _E164.fullmatch(number) else None
        return TelephoneNumber(number, is_e164=False) if e164 is None else TelephoneNumber(e164)

    def _e164(self, number: str) -> str | None:
        """Steps 5 to 8; None for step 9."""
        if self.international_prefix and (prefix := self.international_prefix.match(number)):
            return number[prefix.end() :] or None
        if self.national_prefix and (prefix := self.national_prefix.match(number)):
            national = number[prefix.end() :]
            if len(national) in self.national_lengths:
                return self.country_code + national
        if number.startswith(self.country_code) and len(number) - len(self.country_code) in self.national_lengths:
            return number
        if len(number) in self.national_lengths:
            return self.country_code + number
        return None

    def is_emergency(self, number: TelephoneNumber) -> bool:
        """Whether the number reaches an emergency service, also when sent as +1911."""
        digits, matches = number.digits, self.emergency_numbers.fullmatch
        if matches(digits) is not None:
            return True
        national = digits.removeprefix(self.country_code)
        return len(national) < len(digits) and matches(national) is not None


def canonical_party(uri: Uri, plan: DialPlan) -> Party:
    """The caller or called party that a URI names (RFC 8224 §8.3 and §8.5).

    Raises:
        NumberError: a tel: URI or ``user=phone`` whose number is none.
        SipSyntaxError: a percent-escape that hides a control character.
    """
    if uri.scheme == "tel":
        return plan.canonical(uri.decoded_user(), uri.user_params.get("phone-context"))
    if uri.scheme in {"sip", "sips"} and uri.user:
        is_phone = uri.params.get("user", "").lower() == "phone"
        try:
            user = uri.decoded_user()
            if is_phone or (plan.numeric_users and user[0] in "+0123456789(*#"):
                return plan.canonical(user, uri.user_params.get("phone-context"))
        except (NumberError, SipSyntaxError):
            if is_phone:
                raise
            # A user name that only begins like a number, or has other escapes than a number's.
    return UriIdentity(uri.canonical())
