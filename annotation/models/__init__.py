"""The tables of the domain, a module for each family."""

from annotation.models.assignment import Assignment, Placement
from annotation.models.audit import AuditEvent
from annotation.models.item import Dataset, ImportRecord, Item, Response, System
from annotation.models.people import ApiToken, Invitation, Member, PracticeAnswer, Role, User
from annotation.models.rating import Rating, RatingEvent
from annotation.models.study import Arm, Dimension, Rubric, Study, StudyItem, StudyResponse

__all__ = [
    "ApiToken",
    "Arm",
    "Assignment",
    "AuditEvent",
    "Dataset",
    "Dimension",
    "ImportRecord",
    "Invitation",
    "Item",
    "Member",
    "Placement",
    "PracticeAnswer",
    "Rating",
    "RatingEvent",
    "Response",
    "Role",
    "Rubric",
    "Study",
    "StudyItem",
    "StudyResponse",
    "System",
    "User",
]
