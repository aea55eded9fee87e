"""Names that MediaWiki and its projects have in many languages; dumps list their own namespaces besides.

- `CANONICAL_NAMESPACES`, `LOCAL_NAMESPACES`: prefixes of links to pages that are no articles, in lowercase
- `LANGUAGES`: prefixes of links to the same article in other languages
- `LINK_SECTIONS`: headings of sections that contain only links, notes and literature, in lowercase
- `REDIRECT_WORDS`: words after `#` that make a page a redirect
- `MAGIC_WORDS`: words between double underscores that set properties of a page
"""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CANONICAL_NAMESPACES = _names(
    """
    category draft file help image media mediawiki module portal project special talk template timedtext user
    wikipedia category_talk file_talk help_talk image_talk mediawiki_talk module_talk portal_talk project_talk
    template_talk user_talk wikipedia_talk
    """
)
"""Every wiki knows these names, whatever its language."""

LOCAL_NAMESPACES = _names(
    """
    datei bild kategorie benutzer benutzerin vorlage hilfe spezial wikipedia diskussion fichier catégorie
    utilisateur utilisatrice modèle aide portail spécial discussion projet archivo imagen categoría usuario usuaria
    plantilla ayuda especial anexo immagine categoria utente aiuto portale speciale progetto ficheiro arquivo imagem
    usuário usuária utilizador utilizadora predefinição ajuda bestand afbeelding categorie gebruiker sjabloon
    portaal speciaal plik grafika kategoria wikipedysta wikipedystka szablon pomoc specjalna файл изображение
    категория участник участница шаблон справка портал служебная проект зображення категорія користувач користувачка
    довідка спеціальна выява катэгорыя удзельнік картинка потребител категорија датотека слика корисник предложак
    soubor uživatel uživatelka šablona nápověda speciální súbor kategória redaktor šablóna fájl kép szerkesztő
    sablon segítség portál speciális fișier fişier imagine utilizator format ajutor dosya resim kategori kullanıcı
    şablon yardım özel fil billede bruger skabelon hjælp bruker mal hjelp brukar användare mall hjälp special
    tiedosto kuva luokka käyttäjä malline ohje toiminnot mynd flokkur notandi snið fitxer imatge viquipèdia usuari
    slika datoteka kategorija uporabnik predloga suradnik predložak vaizdas failas naudotojas šablonas attēls fails
    dalībnieks veidne pilt kategooria kasutaja αρχείο εικόνα κατηγορία χρήστης πρότυπο βοήθεια πύλη dosiero
    kategorio uzanto ŝablono helpo fitxategi irudi txantiloi lankide imaxe modelo axuda skedar berkas gambar
    pengguna templat bantuan fail imej tập_tin hình thể_loại thành_viên bản_mẫu trợ_giúp talaksan kategorya ملف صورة
    تصنيف مستخدم قالب مساعدة بوابة خاص پرونده تصویر رده کاربر الگو راهنما درگاه ویژه زمرہ صارف سانچہ קובץ תמונה
    קטגוריה משתמש משתמשת תבנית עזרה פורטל מיוחד चित्र श्रेणी सदस्य साँचा सहायता प्रवेशद्वार विशेष वर्ग চিত্র
    বিষয়শ্রেণী ব্যবহারকারী টেমপ্লেট সাহায্য படிமம் பகுப்பு பயனர் வார்ப்புரு దస్త్రం వర్గం వాడుకరి మూస ചിത്രം
    പ്രമാണം വർഗ്ഗം ഉപയോക്താവ് ഫലകം ಚಿತ್ರ ವರ್ಗ ფაილი სურათი კატეგორია მომხმარებელი თარგი պատկեր կատեգորիա մասնակից
    կաղապար ไฟล์ ภาพ หมวดหมู่ ผู้ใช้ แม่แบบ สถานีย่อย ឯកសារ ចំណាត់ថ្នាក់ក្រុម ទំព័រគំរូ ຮູບ ໝວດ ဖိုင် ကဏ္ဍ 文件
    檔案 档案
    图像 圖像 图片 分类 分類 用户 用戶 使用者 模板 帮助 幫助 特殊 ファイル
    画像 カテゴリ 利用者 テンプレート ヘルプ 特別 파일 그림 분류 사용자 틀 도움말 특수
    """
)
"""Names in some forty languages, for pages without a dump's list."""

LANGUAGES = _names(
    """
    aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar
    bat-smg bbc bcl be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs bug bxr ca cbk-zam cdo ce ceb ch
    cho chr chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el eml en eo es et eu ext
    fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw
    gv ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka
    kaa kab kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg
    li lij lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo mos mr mrj ms mt
    mus mwl my myv mzn na nah nan nap nb nds nds-nl ne new ng nia nl nn no nov nqo nr nrm nso nup nv ny oc olo om or
    os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro roa-rup roa-tara rsk ru rue
    rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn si simple sk skr sl sm smn sn so sq sr srn ss st stq su sv
    sw szl szy ta tay tcy tdd te tet tg th ti tig tk tl tly tn to tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve
    vec vep vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za zea zgh zh zh-classical zh-min-nan zh-yue zu
    """
)
"""Codes of Wikipedias; not all are of ISO 639."""

LINK_SECTIONS = frozenset(
    line.strip()
    for line in """
    references; external links; external link; see also; notes; further reading; bibliography; footnotes; sources
    notes and references; citations; gallery; works cited; notes and citations
    einzelnachweise; weblinks; weblink; literatur; siehe auch; anmerkungen; fußnoten; quellen; nachweise; belege
    einzelnachweise und anmerkungen; anmerkungen und einzelnachweise
    références; notes et références; notes; voir aussi; liens externes; lien externe; bibliographie; annexes
    articles connexes; article connexe; sources; notes et sources
    referencias; enlaces externos; enlace externo; véase también; notas; bibliografía; fuentes; notas y referencias
    note; bibliografia; voci correlate; collegamenti esterni; altri progetti; fonti
    referências; ligações externas; ligação externa; ver também; notas e referências; veja também; fontes
    referenties; externe links; externe link; zie ook; literatuur; bronnen; noten; voetnoten
    bronnen, noten en/of referenties
    przypisy; linki zewnętrzne; zobacz też; uwagi
    примечания; ссылки; литература; см. также; источники; сноски
    примітки; посилання; література; див. також; джерела; зноскі; спасылкі; крыніцы
    източници; външни препратки; вижте също; бележки; литература; референце; спољашње везе; види још; извори; напомене
    reference; externí odkazy; související články; poznámky; referencie; externé odkazy; pozri aj; iné projekty;
    zdroje
    jegyzetek; források; további információk; külső hivatkozások; irodalom; lásd még; kapcsolódó szócikkek
    bibliografie; legături externe; vezi și; referințe; kaynakça; dış bağlantılar; ayrıca bakınız; notlar; kaynaklar
    referencer; eksterne henvisninger; eksterne links; se også; kilder; noter; referanser; eksterne lenker
    eksterne lenkjer
    sjå òg; referenser; externa länkar; se även; källor; litteratur; vidare läsning; tryckta källor
    lähteet; aiheesta muualla; katso myös; viitteet; kirjallisuutta; heimildir; tenglar; tilvísanir; tengt efni
    referències; enllaços externs; vegeu també; bibliografia; reference; vanjske poveznice; izvori; bilješke
    viri; sklici
    zunanje povezave; glej tudi; šaltiniai; nuorodos; išnašos; literatūra; atsauces; ārējās saites; skatīt arī; viited
    välislingid; vaata ka; kirjandus
    παραπομπές; εξωτερικοί σύνδεσμοι; δείτε επίσης; πηγές; βιβλιογραφία; σημειώσεις
    referencoj; eksteraj ligiloj; vidu ankaŭ; referensi; pranala luar; lihat pula; catatan kaki; rujukan; pautan luar
    tham khảo; liên kết ngoài; xem thêm; chú thích; ghi chú
    مراجع; المراجع; وصلات خارجية; انظر أيضا; انظر أيضًا; مصادر; هوامش; منابع; پیوند به بیرون; جستارهای وابسته; پانویس
    حوالہ جات; بیرونی روابط; مزید دیکھیے
    הערות שוליים; קישורים חיצוניים; ראו גם; לקריאה נוספת
    सन्दर्भ; संदर्भ; बाहरी कड़ियाँ; इन्हें भी देखें; संदर्भ और नोट्स; তথ্যসূত্র; বহিঃসংযোগ; আরও দেখুন
    மேற்கோள்கள்; வெளி இணைப்புகள்; మూలాలు; బయటి లింకులు; അവലംബം
    სქოლიო; რესურსები ინტერნეტში; ლიტერატურა; ծանոթագրություններ; արտաքին հղումներ; գրականություն
    อ้างอิง; แหล่งข้อมูลอื่น; ดูเพิ่ม; เชิงอรรถ; ឯកសារយោង; តំណភ្ជាប់ខាងក្រៅ
    参考文献; 參考文獻; 参考资料; 參考資料; 外部链接; 外部連結; 参见; 參見; 注释; 註釋; 脚注; 腳註; 延伸阅读;
    延伸閱讀; 参考; 來源; 来源
    外部リンク; 関連項目; 注釈; 出典; 関連文献; 関連書籍; 각주; 외부 링크; 같이 보기; 참고 문헌; 출처; 함께 보기
    """.replace("\n", ";").split(";")
    if line.strip()
)

REDIRECT_WORDS = (
    "redirect", "weiterleitung", "redirection", "redirección", "rinvia", "redirecionamento", "doorverwijzing",
    "przekieruj", "patrz", "tam", "перенаправление", "перенапр", "перенаправлення", "пренасочване", "přesměruj",
    "presmeruj", "átirányítás", "redirecționează", "yönlendirme", "yönlendir", "omdirigering", "ohjaus",
    "uudelleenohjaus",
    "preusmeritev", "преусмери", "ανακατευθυνση", "alih", "đổi", "đổi hướng",
    "تحويل", "تغییرمسیر", "تغییر_مسیر", "הפניה",
    "पुनर्प्रेषित",
    "পুনর্নির্দেশ", "เปลี่ยนทาง", "重定向", "転送", "リダイレクト", "넘겨주기",
)  # fmt: skip

MAGIC_WORDS = (
    "NOTOC", "FORCETOC", "TOC", "NOEDITSECTION", "NEWSECTIONLINK", "NONEWSECTIONLINK", "NOGALLERY", "HIDDENCAT",
    "EXPECTUNUSEDCATEGORY", "EXPECTUNUSEDTEMPLATE", "EXPECTEDUNCONNECTEDPAGE", "NOCONTENTCONVERT", "NOCC",
    "NOTITLECONVERT", "NOTC", "INDEX", "NOINDEX", "STATICREDIRECT", "START", "END", "DISAMBIG", "NOGLOBAL",
    "ARCHIVEDTALK", "NOTALK", "NOCITOID",
    "KEIN_INHALTSVERZEICHNIS", "KEININHALTSVERZEICHNIS", "INHALTSVERZEICHNIS_ERZWINGEN", "INHALTSVERZEICHNIS",
    "ABSCHNITTE_NICHT_BEARBEITEN", "KEINE_GALERIE", "KEINEGALERIE", "NICHT_INDEXIEREN",
    "AUCUNSOMMAIRE", "AUCUNETDM", "SOMMAIRE", "TDM", "FORCERSOMMAIRE", "FORCERTDM", "SECTIONNONEDITABLE",
    "AUCUNEGALERIE", "NOTDC", "FORZARTDC", "FORZAR_TDC", "TDC", "SIN_TDC", "NOINDICE", "FORZAINDICE", "INDICE",
    "SEMTDC", "SEMSUMARIO", "FORCARTDC", "GEENINHOUD", "INHOUD", "INHOUD_DWINGEN", "FORCEERINHOUD",
    "BEZSPISU", "ZESPISEM", "SPIS",
)  # fmt: skip
"""Other words in capitals, such as `__FILE__`, are text."""
