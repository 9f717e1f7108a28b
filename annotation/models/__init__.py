"""The tables of the domain, a module for each family."""

from annotation.models.assignment import Assignment, Placement
from annotation.models.audit import AuditEvent
from annotation.models.guess import AuthorGuess
from annotation.models.item import Dataset, ImportRecord, Item, Response, System
from annotation.models.judge import Judge, JudgeRating
from annotation.models.people import ApiToken, Invitation, Member, PracticeAnswer, Recognised, Role, User
from annotation.models.rating import Rating, RatingEvent
from annotation.models.report import StoredNumbers
from annotation.models.study import Arm, Dimension, Rubric, Study, StudyItem, StudyResponse
from annotation.models.text import TextCounts

__all__ = [
    "ApiToken",
    "Arm",
    "Assignment",
    "AuditEvent",
    "AuthorGuess",
    "Dataset",
    "Dimension",
    "ImportRecord",
    "Invitation",
    "Item",
    "Judge",
    "JudgeRating",
    "Member",
    "Placement",
    "PracticeAnswer",
    "Rating",
    "RatingEvent",
    "Recognised",
    "Response",
    "Role",
    "Rubric",
    "StoredNumbers",
    "Study",
    "StudyItem",
    "StudyResponse",
    "System",
    "TextCounts",
    "User",
]
