"""The one gate for code of the user's: it asks whether a file may run, runs it, and says what belongs to it."""

from robustframe.userfile.consent import code_consent, code_named, refusal
from robustframe.userfile.imports import UserCode, code_behind, files_of, module_behind
from robustframe.userfile.loading import UserFunction, load_user_file, load_user_function
from robustframe.userfile.own import remember_code, remembered
from robustframe.userfile.project import LIBRARIES, USER_MODULE, plain_name

__all__ = [
    "LIBRARIES",
    "USER_MODULE",
    "UserCode",
    "UserFunction",
    "code_behind",
    "code_consent",
    "code_named",
    "files_of",
    "load_user_file",
    "load_user_function",
    "module_behind",
    "plain_name",
    "refusal",
    "remember_code",
    "remembered",
]
