from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
class AccountAdapter(DefaultAccountAdapter): pass
class MFAAdapter(DefaultMFAAdapter): pass
