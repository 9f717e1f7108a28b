"""All pages of the site, a module for each family of readers."""

from annotation.urls import jobs, library, people, rater, reports, research

urlpatterns = [
    *people.urlpatterns,
    *rater.urlpatterns,
    *research.urlpatterns,
    *reports.urlpatterns,
    *library.urlpatterns,
    *jobs.urlpatterns,
]
