@echo off
rem Fetches a portable Python into .athanor-setup\python, after asking. Called by gui.bat where none was found.
setlocal
set "HOME_FOLDER=%~dp0..\.athanor-setup"
set "PART=%HOME_FOLDER%\python.tar.gz.part"
set "TOOLS=%SystemRoot%\System32"
set "TABLE=%~dp0addresses.txt"
set "ADDRESS="
set "SHA256="
for /f "usebackq tokens=1,* delims==" %%A in ("%TABLE%") do if "%%A"=="portable_python" set "ADDRESS=%%B"
for /f "usebackq tokens=1,* delims==" %%A in ("%TABLE%") do if "%%A"=="portable_python_sha256" set "SHA256=%%B"
if defined ATHANOR_PORTABLE_PYTHON set "ADDRESS=%ATHANOR_PORTABLE_PYTHON%"

echo Athanor can fetch a Python of its own (46 MB) into its folder; nothing else on this computer is changed:
echo   "%ADDRESS%"
set "ANSWER="
set /p "ANSWER=Fetch it now? [y/N] "
if /i not "%ANSWER%"=="y" exit /b 1

if not exist "%HOME_FOLDER%" mkdir "%HOME_FOLDER%"
call :is_whole
if not errorlevel 1 goto unpack
echo Downloading...
"%TOOLS%\curl.exe" --fail --location --retry 5 --continue-at - --output "%PART%" "%ADDRESS%"
if errorlevel 1 goto no_download
call :is_whole
if errorlevel 1 goto wrong_file
:unpack
echo Unpacking...
if exist "%HOME_FOLDER%\python" rmdir /s /q "%HOME_FOLDER%\python"
"%TOOLS%\tar.exe" -xf "%PART%" -C "%HOME_FOLDER%"
if errorlevel 1 goto no_unpack
del "%PART%"
exit /b 0

:no_download
echo The download broke off. Start again: it goes on where it was.
exit /b 1

:wrong_file
echo The downloaded file is not the one expected (its SHA-256 differs). It was deleted; start again.
del "%PART%"
exit /b 1

:no_unpack
echo The file could not be unpacked. Is the disk full?
exit /b 1

rem Is the downloaded file there, and the one expected?
:is_whole
if not exist "%PART%" exit /b 1
"%TOOLS%\certutil.exe" -hashfile "%PART%" SHA256 | "%TOOLS%\find.exe" /i "%SHA256%" >nul
exit /b %ERRORLEVEL%
