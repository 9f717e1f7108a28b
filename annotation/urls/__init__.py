"""All pages of the site, a module for each family of readers."""

from annotation.urls import library, people, rater, research

urlpatterns = [*people.urlpatterns, *rater.urlpatterns, *research.urlpatterns, *library.urlpatterns]
